"""One's own rounds of VRAM golf, in one JSON file that is never lost and never half written.

It is ``ftcourse-golf.json`` beside the progress file, or the file that FTCOURSE_GOLF names.
"""

import json
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.files import set_aside, write_whole
from ftcourse.memory.breakdown import show_bytes

EDITION = 1  # rises when courses or letters change: older rounds then compare with nothing
Round = dict[str, Any]
"""``course``, ``peak`` in bytes, ``loss``, ``passed``, and the ``config`` beside the defaults."""


@dataclass(frozen=True)
class Scorecard:
    """The table of one's own rounds on some courses."""

    rounds: list[Round]
    courses: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return a line for each course: what it asks for, par, and one's best."""
        lines = [_LINE.format("course", "loss", "budget", "par", "your best", "loss", "rounds")]
        for name, course in self.courses.items():
            mine = [each for each in self.rounds if each["course"] == name]
            counts = [each for each in mine if each["passed"]]
            best = min(counts, key=lambda each: each["peak"], default=None)
            yours = (show_bytes(best["peak"]), f"{best['loss']:.2f}") if best else ("-", "-")
            asked = f"{course.target:.2f}", show_bytes(course.budget), show_bytes(course.par)
            lines.append(_LINE.format(name, *asked, *yours, len(mine)))
        return "\n".join(lines)


_LINE = "{:<8}{:>6}{:>12}{:>12}{:>12}{:>7}{:>8}"


def read_rounds() -> list[Round]:
    """Return the rounds kept so far.

    A damaged file, or one of another edition, is renamed and kept, with a warning.
    """
    path = _path()
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        rounds = [_checked(each) for each in table["rounds"]]
        if table["edition"] == EDITION:
            return rounds
        problem = f"edition {table['edition']!r}"
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        problem = f"damaged ({type(error).__name__})"
    aside = set_aside(path, "aside")
    must = f"The table of golf is a whole file of edition {EDITION}."
    do = f"Nothing is lost: it is now {aside.name}, and a new table begins."
    warnings.warn(str(CourseError(must, f"{path.name}: {problem}", do)), stacklevel=3)
    return []


def keep_round(mine: Round) -> None:
    """Add a round to the file. If it cannot be written, only warn: the round is still there."""
    path = _path()
    lock = path.with_suffix(".lock")
    try:
        for _ in range(100):  # while another round writes; a lock left behind holds for 5 s
            with suppress(FileExistsError):
                lock.touch(exist_ok=False)
                break
            time.sleep(0.05)
        try:
            table = {"edition": EDITION, "rounds": [*read_rounds(), mine]}
            write_whole(path, json.dumps(table, indent=1) + "\n")
        finally:
            lock.unlink(missing_ok=True)
    except OSError as error:
        must, do = "A round is kept in the table of golf.", "Write its score down."
        problem = CourseError(must, f"{path}: {error.strerror}", do)
        warnings.warn(str(problem), stacklevel=3)


def _checked(each: Round) -> Round:
    kept = {"peak": int(each["peak"]), "loss": float(each["loss"]), "passed": bool(each["passed"])}
    return each | kept | {"course": str(each["course"])}


def _path() -> Path:
    beside = Path(os.environ.get("FTCOURSE_PROGRESS") or "ftcourse-progress.json")
    return Path(os.environ.get("FTCOURSE_GOLF") or beside.with_name("ftcourse-golf.json"))
