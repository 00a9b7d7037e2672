"""What an exercise is: a judge that never raises, three hints and a solution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isclose, isfinite
from numbers import Real
from typing import Any

import numpy as np

from ftcourse.check.progress import keep
from ftcourse.errors import CourseError
from ftcourse.source import Source, Text


@dataclass(frozen=True)
class Verdict:
    """The result of a check; true if the answer passed."""

    passed: bool
    says: str

    def __bool__(self) -> bool:
        """Return whether the answer passed."""
        return self.passed

    @property
    def mark(self) -> str:
        """The first words of the verdict, with a mark that needs no colour."""
        return "✓ Right." if self.passed else "✗ Not yet."

    def __repr__(self) -> str:
        """Return the verdict as the learner reads it."""
        return repr(Text(f"{self.mark} {self.says}"))

    def _repr_html_(self) -> str:
        color = "#009E73" if self.passed else "#E69F00"
        style = f"border-left: 4px solid {color}; padding-left: 8px; white-space: pre-wrap"
        return f'<p style="{style}"><b>{self.mark}</b> {escape(self.says)}</p>'


Judge = Callable[[Any], Verdict | None]
"""Judges an answer; None if there is none yet, as from a function that returns three dots."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson. Call it with an answer."""

    judge: Judge
    hints: tuple[str, str, str]
    """Three hints; each one helps more than the one before."""
    solution: Source
    """A right answer, as Python."""

    @property
    def name(self) -> str:
        """The name that the lesson uses for it."""
        return self.judge.__name__

    def __repr__(self) -> str:
        """Return the name and what is judged."""
        return f"check.{self.name}: {self.judge.__doc__}"

    def __call__(self, mine: Any = ...) -> Verdict:
        """Judge any answer, and keep in the progress file whether it passed."""
        if mine is None or mine is ...:
            return self._unanswered()
        try:
            verdict = self.judge(mine)
        except Exception as error:  # an answer may do anything, and the lesson must go on
            why = f"it is a {type(mine).__name__} and led to a {type(error).__name__}"
            verdict = Verdict(False, f"This answer cannot be judged: {why}. Is it what was asked?")
        if verdict is None:
            return self._unanswered()
        problem = keep(self.name, verdict.passed)
        return Verdict(verdict.passed, f"{verdict.says} ({problem})") if problem else verdict

    def _unanswered(self) -> Verdict:
        hint = f'check.hint("{self.name}", 1)'
        return Verdict(False, f"No answer so far. Write yours for the three dots; {hint} helps.")

    def hint(self, number: int) -> Text:
        """Return the first, second or third hint."""
        if number not in (1, 2, 3):
            raise CourseError("There are three hints.", f"number={number!r}", "Ask for 1, 2 or 3.")
        return Text(self.hints[number - 1])


def exercise(hints: tuple[str, str, str], solution: str) -> Callable[[Judge], Exercise]:
    """Return a decorator that turns a judge into an exercise with the judge's name."""
    return lambda judge: Exercise(judge, hints, Source(solution.strip()))


def judge_number(
    mine: Any,
    right: float,
    bugs: Mapping[float, str],
    praise: str,
    other: str = "Which factors does yours have?",
    *,
    within: float = 5e-4,
    asked: str = "A number",
) -> Verdict:
    """Judge a number, right if it is near enough; ``within`` is relative.

    ``bugs`` maps a wrong number to the question for whoever answers it. Any other one is told
    whether it is too large, and gets the question ``other``.
    """
    if isinstance(mine, bool) or not isinstance(mine, Real):
        return Verdict(False, f"{asked} is asked for. Is yours {a_type(mine)}?")
    if not isfinite(mine):
        return Verdict(False, f"{asked} is asked for, a finite one. How did you compute {mine}?")
    if isclose(mine, right, rel_tol=within):
        return Verdict(True, praise)
    other = f"That is too {'large' if mine > right else 'small'}. {other}"
    near = (question for bug, question in bugs.items() if isclose(mine, bug, rel_tol=within))
    return Verdict(False, next(near, other))


def judge_function(
    mine: Any,
    cases: Callable[[], Sequence[tuple]],
    right: Callable,
    bugs: Mapping[str, Callable],
    praise: str,
    stops: str = "",
) -> Verdict | None:
    """Judge a learner's function on cases that the lesson does not show.

    ``cases`` makes the arguments of each call, new ones each time, since a function may change what
    it is given. ``right`` is the function that is asked for. ``bugs`` maps a question to what
    somebody writes who needs to be asked it; a function that agrees with it gets the question.
    ``stops`` is the question for one that raises an error.
    """
    if not callable(mine):
        return Verdict(False, f"A function is asked for. Is yours {a_type(mine)}?")
    answers = []
    for case in cases():
        try:
            answers.append(mine(*case))
        except Exception as error:
            what = f"Your function stopped with {type(error).__name__}: {_short(error)}."
            return Verdict(False, f"{what} {stops} It was given: {_say(case)}")
    if all(answer is ... for answer in answers):
        return None
    if any(answer is None for answer in answers):
        return Verdict(False, "Your function returned None. Does it end with a return?")

    def agrees(other: Callable) -> bool:
        return all(_same(a, other(*case)) for a, case in zip(answers, cases(), strict=True))

    if agrees(right):
        return Verdict(True, praise)
    shapes = [tuple(np.shape(_plain(x))) for x in (answers[0], right(*cases()[0]))]
    if shapes[0] != shapes[1]:
        asked = f"A result of shape {shapes[1]} is asked for where yours has {shapes[0]}."
        return Verdict(False, f"{asked} What are its rows and its columns?")
    question = next((question for question, bug in bugs.items() if agrees(bug)), None)
    if question is None:
        wrong = next(i for i, case in enumerate(cases()) if not _same(answers[i], right(*case)))
        question = (
            f"For {_say(cases()[wrong])} it gives {_short(answers[wrong])}, and "
            f"{_short(right(*cases()[wrong]))} is right. Where do they part?"
        )
    return Verdict(False, question)


def _same(mine: Any, right: Any) -> bool:
    """Return whether two results have the same shape and values; numbers may differ by rounding."""
    mine, right = np.asarray(_plain(mine)), np.asarray(_plain(right))
    if mine.shape != right.shape or mine.dtype.kind in "OUS":
        return mine.shape == right.shape and bool((mine == right).all())
    return np.allclose(mine, right, rtol=1e-4, atol=1e-6, equal_nan=True)


def _plain(value: Any) -> Any:
    return value.detach() if hasattr(value, "detach") else value


def a_type(value: Any) -> str:
    """Return the name of a value's type with its article, such as "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _say(case: tuple) -> str:
    return ", ".join(map(_short, case))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
