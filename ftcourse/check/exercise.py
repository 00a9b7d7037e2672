"""What an exercise is: a judge that never raises, three hints and a solution."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ftcourse.check.progress import keep
from ftcourse.errors import CourseError


@dataclass(frozen=True)
class Verdict:
    """The result of a check; true if the answer passed."""

    passed: bool
    says: str

    def __bool__(self) -> bool:
        """Return whether the answer passed."""
        return self.passed

    def __repr__(self) -> str:
        """Return the verdict as the learner reads it."""
        return f"{'Right.' if self.passed else 'Not yet.'} {self.says}"


Judge = Callable[[Any], Verdict]


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson. Call it with an answer."""

    judge: Judge
    hints: tuple[str, str, str]
    """Three hints; each one helps more than the one before."""
    solution: str
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
            hint = f'check.hint("{self.name}", 1)'
            return Verdict(
                False, f"No answer so far. Write yours for the three dots; {hint} helps."
            )
        try:
            verdict = self.judge(mine)
        except Exception as error:  # an answer may do anything, and the lesson must go on
            why = f"it is a {type(mine).__name__} and led to a {type(error).__name__}"
            verdict = Verdict(False, f"This answer cannot be judged: {why}. Is it what was asked?")
        problem = keep(self.name, verdict.passed)
        return Verdict(verdict.passed, f"{verdict.says} ({problem})") if problem else verdict

    def hint(self, number: int) -> str:
        """Return the first, second or third hint."""
        if number not in (1, 2, 3):
            raise CourseError("There are three hints.", f"number={number!r}", "Ask for 1, 2 or 3.")
        return self.hints[number - 1]


def exercise(hints: tuple[str, str, str], solution: str) -> Callable[[Judge], Exercise]:
    """Return a decorator that turns a judge into an exercise with the judge's name."""
    return lambda judge: Exercise(judge, hints, solution)
