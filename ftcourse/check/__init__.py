"""Judges the exercises, and keeps the progress. One file for each lesson, named after it.

A check takes the learner's answer and never raises, whatever that is; a wrong answer gets a
question that points at its bug.
"""

from ftcourse.check.exercise import Exercise, Verdict
from ftcourse.check.progress import progress
from ftcourse.check.start_here import fits_t4, unshrunk_part, weight_gib
from ftcourse.errors import CourseError

EXERCISES = {each.name: each for each in (weight_gib, fits_t4, unshrunk_part)}

__all__ = [*EXERCISES, "Verdict", "hint", "progress", "solution"]


def hint(name: str, number: int = 1) -> str:
    """Return the first, second or third hint for an exercise."""
    return _named(name).hint(number)


def solution(name: str) -> str:
    """Return a right answer to an exercise, as Python."""
    return _named(name).solution


def _named(name: str) -> Exercise:
    if name not in EXERCISES:
        names = ", ".join(EXERCISES)
        raise CourseError("Hints go by an exercise's name.", repr(name), f"There are {names}.")
    return EXERCISES[name]
