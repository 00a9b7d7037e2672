import json
from datetime import date
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from ftcourse import check
from ftcourse.errors import CourseError

KEPT = {
    "weight_gib": {"tries": 3, "passed": True},
    "fits_t4": {"tries": 2, "passed": False},
    "paged_rank": {"tries": 1, "passed": True},
}


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(path))
    return path


def write(path, entries):
    path.write_text(json.dumps(entries), encoding="utf-8")


def facts():
    return dict(check.completion().facts)


def test_the_record_counts_what_passed_and_names_what_is_open_in_each_lesson(progress_file):
    write(progress_file, KEPT)
    found, count = facts(), len(list(check._exercises()))
    assert found["all"] == f"2 of {count} passed, tries: 6"
    assert found["00_start_here.ipynb"] == (
        "1 of 5 passed, tries: 5; open: reach_8192, fits_t4, loss_gradient, unshrunk_part"
    )
    assert found["04_memory.ipynb"].startswith("1 of 9 passed, tries: 1; open: green")
    assert "paged_rank" not in found["04_memory.ipynb"]
    assert found["made on"] == str(date.today())
    assert found["file"] == f"progress.json, as of {date.today()}"


def test_a_finished_lesson_has_nothing_open(progress_file):
    names = facts()["00_start_here.ipynb"].partition("open: ")[2].split(", ")
    write(progress_file, {name: {"tries": 1, "passed": True} for name in names})
    assert facts()["00_start_here.ipynb"] == "5 of 5 passed, tries: 5"


def test_every_exercise_is_counted_once_in_the_lesson_that_asks_for_it():
    found = facts()
    assert "no lesson" not in found
    named = [n for text in found.values() for n in text.partition("open: ")[2].split(", ") if n]
    assert sorted(named) == sorted(exercise.name for exercise in check._exercises())
    notebooks = Path(__file__).parent.parent / "notebooks"
    assert [name for name in found if "ipynb" in name] == sorted(
        file.name
        for file in notebooks.glob("*.ipynb")
        if "check." in file.read_text(encoding="utf-8")
    )


def test_without_a_file_nothing_is_claimed_and_no_file_is_made(progress_file):
    found = facts()
    assert found["file"] == "progress.json, not there"
    assert found["all"].startswith("0 of ")
    assert found["all"].endswith("tries: 0")
    assert not progress_file.exists()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[" * 100_000,
        '{"weight_gib": {"tries": 1, "passed": "no"}}',
        '{"weight_gib": {"tries": true, "passed": true}}',
        '{"edition": 9}',
    ],
)
def test_a_damaged_file_is_kept_aside_named_and_not_counted(damage, progress_file):
    progress_file.write_text(damage, encoding="utf-8")
    for _ in range(2):  # the second record still says it
        found = facts()
        assert found["set aside"] == "progress.damaged-1.json: damaged, kept, not counted"
        assert found["all"].startswith("0 of ")
    kept = progress_file.with_name("progress.damaged-1.json")
    assert kept.read_text(encoding="utf-8") == damage


def test_the_damaged_file_of_another_course_is_not_ours(progress_file):
    progress_file.with_name("other.damaged-1.json").touch()
    assert "set aside" not in facts()


def test_entries_of_another_edition_are_named_and_stay_in_the_file(progress_file):
    theirs = {"tries": 4, "passed": True, "since": "2031"}
    write(progress_file, KEPT | {"<b>later": theirs})
    assert facts()["of another edition"] == "'<b>later': 1 of 1 passed, tries: 4"
    assert facts()["all"].startswith("2 of ")
    assert "<b>later" not in check.completion()._repr_html_()
    check.weight_gib(15)
    assert json.loads(progress_file.read_text(encoding="utf-8"))["<b>later"] == theirs


def test_two_entries_of_another_edition_have_a_line_each(progress_file):
    write(progress_file, {name: {"tries": 1, "passed": False} for name in ("x", "y")})
    assert [name for name, _ in check.completion().facts].count("of another edition") == 2
    assert "'x'" in repr(check.completion())
    assert "'y'" in repr(check.completion())


def test_what_a_later_edition_keeps_in_our_entries_stays(progress_file):
    write(progress_file, {"weight_gib": {"tries": 1, "passed": True, "since": "2031"}})
    check.weight_gib(16)
    assert json.loads(progress_file.read_text(encoding="utf-8")) == {
        "weight_gib": {"tries": 2, "passed": True, "since": "2031"}
    }


def test_a_progress_file_that_cannot_be_read_is_an_error_in_three_parts(progress_file):
    progress_file.mkdir()
    with pytest.raises(CourseError, match=r"can be read[\s\S]*progress\.json[\s\S]*do:"):
        check.completion()


def test_the_text_is_narrow_and_says_that_it_is_no_certificate(progress_file):
    write(progress_file, KEPT)
    text = repr(check.completion())
    assert max(map(len, text.splitlines())) <= 80
    assert "no certificate" in " ".join(text.split())
    assert "no certificate" in check.completion()._repr_html_()


def test_the_text_and_the_html_say_the_same(progress_file):
    write(progress_file, KEPT | {"<b>later": {"tries": 1, "passed": False}})
    record = check.completion()
    rows = BeautifulSoup(record._repr_html_(), "html.parser").find_all("tr")
    assert [(row.th.get_text(), row.td.get_text()) for row in rows] == list(record.facts)
    assert all("".join(text.split()) in "".join(repr(record).split()) for _, text in record.facts)


def test_a_record_is_saved_as_a_whole_page(tmp_path, progress_file):
    write(progress_file, KEPT)
    record = check.completion()
    path = record.save(tmp_path / "record.html")
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    assert page.html["lang"] == "en"
    assert page.title.string == page.caption.string == repr(record).splitlines()[0]
    assert record._repr_html_() in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".part")] == []


def test_a_file_that_is_there_is_never_overwritten(tmp_path):
    path = tmp_path / "record.html"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(CourseError, match=r"new file[\s\S]*already[\s\S]*another name"):
        check.completion().save(path)
    assert path.read_text(encoding="utf-8") == "mine"
    for place in (tmp_path, tmp_path / "missing" / "record.html"):
        with pytest.raises(CourseError, match="another name"):
            check.completion().save(place)
