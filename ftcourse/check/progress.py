"""The learner's progress, in one JSON file that is never lost and never half written.

It is ``ftcourse-progress.json`` in the working folder, or where FTCOURSE_PROGRESS says. It maps an
exercise's name to how often it was answered and whether it was passed.
"""

import json
import os
import tempfile
from itertools import count
from pathlib import Path
from typing import TypedDict


class Entry(TypedDict):
    """How one exercise went."""

    tries: int
    passed: bool


def progress() -> dict[str, Entry]:
    """Return how each exercise went that was answered so far; a damaged file is moved aside."""
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
    """Add one answer to the file. Return what went wrong, or nothing at all."""
    try:
        entries = progress()
        old = entries.get(name, Entry(tries=0, passed=False))
        entries[name] = Entry(tries=old["tries"] + 1, passed=old["passed"] or passed)
        _write(_path(), json.dumps(entries, indent=2))
    except OSError as error:
        return f"your progress could not be saved: {error.strerror}"
    return ""


def _path() -> Path:
    return Path(os.environ.get("FTCOURSE_PROGRESS") or "ftcourse-progress.json")


def _write(path: Path, text: str) -> None:
    """Write a file in one step, so that a reader finds the old text or the new."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
