"""Where the course's own files lie: in an installed wheel, or beside the package in a checkout."""

from pathlib import Path

from ftcourse.errors import CourseError

_PACKAGE = Path(__file__).parent


def course_path(name: str) -> Path:
    """Return the path of a file or folder of the course, such as ``data/model`` or ``notebooks``.

    Raises CourseError if it is not there.
    """
    for root in (_PACKAGE / "course", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise CourseError(
        f"The course's own {name!r} lies in the installed package or beside it in a checkout.",
        f"neither {_PACKAGE / 'course' / name} nor {_PACKAGE.parent / name}",
        "Install ftcourse again; its files are incomplete.",
    )
