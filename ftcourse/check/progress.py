"""The learner's progress, in one JSON file that is never lost and never half written.

It is ``ftcourse-progress.json`` in the working folder, or the file that FTCOURSE_PROGRESS names. It
maps the name of an exercise to the number of answers and whether one of them passed.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from ftcourse.files import set_aside, write_whole


class Entry(TypedDict):
    """The progress in one exercise."""

    tries: int
    passed: bool


def progress() -> dict[str, Entry]:
    """Return the progress in each exercise answered so far; a damaged file is renamed and kept."""
    path = path_of_progress()
    if not path.exists():
        return {}
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        entries = json.loads(path.read_text(encoding="utf-8"))
        if all(type(e["tries"]) is int and type(e["passed"]) is bool for e in entries.values()):
            return entries
    set_aside(path, "damaged")
    return {}


def keep(name: str, passed: bool) -> str:
    """Add one answer to the file. Return what went wrong, or an empty text."""
    try:
        entries = progress()
        entry = entries.setdefault(name, Entry(tries=0, passed=False))
        entry |= Entry(tries=entry["tries"] + 1, passed=entry["passed"] or passed)
        write_whole(path_of_progress(), json.dumps(entries, indent=2) + "\n")
    except OSError as error:
        return f"your progress could not be saved: {error.strerror}"
    return ""


def path_of_progress() -> Path:
    """Return where the progress file is, or will be."""
    return Path(os.environ.get("FTCOURSE_PROGRESS") or "ftcourse-progress.json")
