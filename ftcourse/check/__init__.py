"""Judges the exercises and keeps the progress. Each lesson has one file here, with its name.

A check takes the learner's answer and never raises, whatever the answer is. A wrong answer gets a
question that points at its bug.

A new lesson only adds its file: ``check.NAME`` imports one lesson after another until it finds the
exercise.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ftcourse.check.completion import Completion, read_completion
from ftcourse.check.exercise import Exercise, Verdict
from ftcourse.check.guess import noted, revisit
from ftcourse.check.progress import progress
from ftcourse.errors import CourseError
from ftcourse.source import Source, Text

__all__ = ["Verdict", "completion", "hint", "noted", "progress", "revisit", "solution"]

_MACHINERY = ("completion", "exercise", "guess", "progress")


def hint(name: str, number: int = 1) -> Text:
    """Return the first, second or third hint for an exercise."""
    return _named(name).hint(number)


def solution(name: str) -> Source:
    """Return a right answer to an exercise, as Python."""
    return _named(name).solution


def completion() -> Completion:
    """Return what the progress file says of all exercises; ``.save("record.html")`` keeps it."""
    return read_completion(exercise.name for exercise in _exercises())


def __getattr__(name: str) -> Any:
    if name in _lessons():
        return import_module(f"{__name__}.{name}")
    # Python and Jupyter often ask for names with underscores: no lesson is loaded for those.
    exercise = None if name.startswith("_") else _find(name)
    if exercise is not None:
        return exercise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(exercise.name for exercise in _exercises())])


def _lessons() -> list[str]:
    """Return the names of the lessons' modules."""
    return [m.name for m in iter_modules(__path__) if m.name not in _MACHINERY]


def _exercises() -> Iterator[Exercise]:
    """Yield the exercises of one lesson after another; a lesson is imported when it is reached."""
    for lesson in _lessons():
        found = vars(import_module(f"{__name__}.{lesson}")).values()
        yield from (each for each in found if isinstance(each, Exercise))


def _find(name: str) -> Exercise | None:
    return next((exercise for exercise in _exercises() if exercise.name == name), None)


def _named(name: str) -> Exercise:
    found = _find(name)
    if found is None:
        names = ", ".join(exercise.name for exercise in _exercises())
        raise CourseError("An exercise is found by its name.", repr(name), f"Use {names}.")
    return found
