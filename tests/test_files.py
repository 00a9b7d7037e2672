import errno
import os
import threading
from pathlib import Path

import pytest

from ftcourse.errors import CourseError
from ftcourse.files import course_path, write_whole


def fail(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_of_the_course_is_found_and_a_missing_one_is_refused():
    assert (course_path("data/model") / "config.json").is_file()
    with pytest.raises(CourseError, match="no/such/file"):
        course_path("no/such/file")


@pytest.mark.parametrize(("content", "found"), [("grün\n", "grün\n".encode()), (b"\xff", b"\xff")])
def test_text_and_bytes_replace_the_old_content(content, found, tmp_path):
    file = tmp_path / "file"
    for old in (None, b"a longer old content"):
        if old:
            file.write_bytes(old)
        write_whole(file, content)
        assert file.read_bytes() == found
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_no_other(step, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("old", encoding="utf-8")
    write = Path.write_bytes

    def write_half(path, content):
        write(path, content[: len(content) // 2])
        fail()

    if step == "write":
        monkeypatch.setattr(Path, "write_bytes", write_half)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_readers_and_writers_at_the_same_time_meet_complete_files_only(tmp_path):
    file = tmp_path / "file"
    contents = [bytes([number]) * 300_000 for number in range(4)]
    write_whole(file, contents[0])
    problems = []

    def write(content):
        try:
            for _ in range(25):
                write_whole(file, content)
        except OSError as error:
            problems.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert file.read_bytes() in contents
    assert problems == []
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
def test_a_new_file_has_the_permissions_of_any_other_new_file(tmp_path):
    (tmp_path / "other").touch()
    write_whole(tmp_path / "file", "")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode
