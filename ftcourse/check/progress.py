"""The learner's progress, in one JSON file that is never lost and never half written.

It is ``ftcourse-progress.json`` in the working folder, or the file that FTCOURSE_PROGRESS names. It
maps the name of an exercise to the number of answers and whether one of them passed.
"""

import json
import os
from itertools import count
from pathlib import Path
from typing import TypedDict

from ftcourse.files import write_whole


class Entry(TypedDict):
    """The progress in one exercise."""

    tries: int
    passed: bool


def progress() -> dict[str, Entry]:
    """Return the progress in each exercise answered so far; a damaged file is renamed and kept."""
    path = _path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Entry(tries=int(e["tries"]), passed=bool(e["passed"]))
            for name, e in entries.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        aside = (path.with_name(f"{path.stem}.damaged-{n}.json") for n in count(1))
        path.rename(next(name for name in aside if not name.exists()))
        return {}


def keep(name: str, passed: bool) -> str:
    """Add one answer to the file. Return what went wrong, or an empty text."""
    try:
        entries = progress()
        old = entries.get(name, Entry(tries=0, passed=False))
        entries[name] = Entry(tries=old["tries"] + 1, passed=old["passed"] or passed)
        write_whole(_path(), json.dumps(entries, indent=2) + "\n")
    except OSError as error:
        return f"your progress could not be saved: {error.strerror}"
    return ""


def _path() -> Path:
    return Path(os.environ.get("FTCOURSE_PROGRESS") or "ftcourse-progress.json")
