"""The guesses that a lesson asks for at its begin, beside what it found."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any

from ftcourse.source import Text


@dataclass(frozen=True)
class Guesses:
    """What was guessed and what came out; a guess that was not made is no error."""

    rows: tuple[tuple[str, str, str], ...]
    """What was asked, the guess, and what came out."""
    came: str = "measured"
    """How it came out: ``measured``, ``predicted`` or ``recorded``."""

    def __repr__(self) -> str:
        """Return a table."""
        table = [("", "your guess", self.came), *self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", "your guess", self.came))
        rows = (f"<tr><td>{'</td><td>'.join(map(escape, row))}</td></tr>" for row in self.rows)
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def noted(**guesses: Any) -> Text:
    """Return what a learner reads after writing down guesses; it never raises.

    >>> noted(voice=50, times=...)
    No guess yet for times. Write a number for the three dots.
    """
    missing = [name for name, guess in guesses.items() if not isinstance(guess, Real)]
    if missing:
        names = " and ".join(missing)
        return Text(f"No guess yet for {names}. Write a number for the three dots.")
    said = ", ".join(f"{name} {guess}" for name, guess in guesses.items())
    return Text(f"Noted: {said}. We come back to it.")


def revisit(guesses: Mapping[str, tuple[Any, Any]], came: str = "measured") -> Guesses:
    """Return the guesses beside what came out: what was asked, to a guess and a result.

    ``came`` says how the results came out; it is the head of their column.

    >>> revisit({"times the model": (2, 23), "answers, of 100": (..., 100)})
                     your guess  measured
    times the model  2           23
    answers, of 100  none        100
    """
    rows = ((asked, *map(_say, pair)) for asked, pair in guesses.items())
    return Guesses(tuple(rows), came)


def _say(value: Any) -> str:
    return "none" if value is ... or value is None else str(value)
