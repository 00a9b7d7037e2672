"""Files: where the course's own files are, and the one way in which this package writes a file."""

from itertools import count
from pathlib import Path
from uuid import uuid4

from ftcourse.errors import CourseError, check_kind

_PACKAGE = Path(__file__).parent


def course_path(name: str) -> Path:
    """Return the path of a file or folder of the course, such as ``data/model`` or ``notebooks``.

    It is in the installed wheel, or beside the package in a checkout. Raises CourseError if it is
    in neither.
    """
    for root in (_PACKAGE / "course", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise CourseError(
        f"The course's own {name!r} is in the installed package or beside it in a checkout.",
        f"neither {_PACKAGE / 'course' / name} nor {_PACKAGE.parent / name}",
        "Install ftcourse again; its files are incomplete.",
    )


def user_path(text: str | Path) -> Path:
    """Return a path that a user gave, with ``~`` as the shell reads it.

    Raises CourseError for an empty one, for one that no file system has, and for a home that is
    not there.
    """
    check_kind("path", text, (str, Path), "'runs/first'")
    problem = "an empty path" if not str(text).strip() else ""
    problem = problem or ("a NUL character in it" if "\0" in str(text) else "")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        problem = "no such user here"
    if problem:
        raise CourseError("A path names a file or folder.", f"{text!s}: {problem}", "Correct it.")
    return path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file in one step: a reader finds the old content or the new, never half of it.

    Text is written as UTF-8. If the write fails, as on a full disk, the old file stays and the
    OSError is raised.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")  # two writers never share one
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def set_aside(path: Path, word: str) -> Path:
    """Rename a file that cannot be read, so that nothing is lost; return its new path."""
    names = (path.with_name(f"{path.stem}.{word}-{n}.json") for n in count(1))
    return path.rename(next(name for name in names if not name.exists()))
