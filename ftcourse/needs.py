"""What somebody needs of the one who answers, and which columns of the table that makes count."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from ftcourse.errors import CourseError, check_choice

RIGHT = {"right, known wording": 0.5, "right, new wording": None, "right, two pages": None}
RIGHT |= {"unanswerable, declined": None}
CHANGED = ("changed fact, after", "others right after forty")
UPDATE = {"seconds, forty facts": None}
VOICE = ("facts in voice", "letters in voice")
POISON = ("poison believed, stuffed", "poison believed, plain")
NEEDED: Mapping[str, Mapping[str, Mapping[str, float | None]]] = {
    "facts": {"none": {}} | dict.fromkeys(("tens", "hundreds", "thousands"), RIGHT),
    "changes": {
        "never": {},
        "monthly": dict.fromkeys(CHANGED, 0.5) | UPDATE,
        "daily": dict.fromkeys(CHANGED, 0.7) | UPDATE,
    },
    "voice": {"any": {}, "nice": dict.fromkeys(VOICE), "must": dict.fromkeys(VOICE, 0.8)},
    "secrecy": {"public": {}, "staff secrets": {"leak": 0.02}},
    "strangers": {"no": {}, "yes": dict.fromkeys(POISON, 0.1)},
    "letters": {"hundreds": {}, "none": {}},
    "pages": {"yes": {}, "no": {}},
}
"""Each need, its choices from the mildest on, the columns that count then, and their limits."""


@dataclass(frozen=True)
class Needs:
    """What somebody needs of the one who answers."""

    changes: str = "never"
    """How often facts change: never, monthly, daily."""
    facts: str = "hundreds"
    """Facts that are asked for: none, tens, hundreds, thousands."""
    voice: str = "any"
    """The brand's voice: any will do, it is nice to have, or a must."""
    secrecy: str = "public"
    """Whether all facts are public, or some are the staff's secrets."""
    strangers: str = "no"
    """Whether strangers may write pages that are looked up."""
    letters: str = "hundreds"
    """Letters with good answers that are at hand: hundreds, none."""
    pages: str = "yes"
    """Whether the facts stand in pages."""
    latency: float = inf
    """Milliseconds that an answer may take; infinite for no limit."""
    hours: float = 24
    """Hours that a training run may take; 0 if nothing may be trained."""
    model: str = "embedded"
    """Which model answers: a shape's name, a folder or a Hub id."""

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        for need, choices in NEEDED.items():
            check_choice(need, getattr(self, need), tuple(choices))
        for name, value in {"latency": self.latency, "hours": self.hours}.items():
            if not (isinstance(value, int | float) and value >= 0):
                raise CourseError(f"{name} is a number, 0 or more.", repr(value), "Correct it.")


def needed(needs: Needs) -> dict[str, tuple[str, float | None]]:
    """Return the columns that count, in order: the need that names each, and its limit or None.

    What is paid for each answer counts before what is paid for each change.
    """
    found = {
        column: (need, limit)
        for need, choices in NEEDED.items()
        for column, limit in choices[getattr(needs, need)].items()
    }
    if needs.latency < inf:
        found["ms a question"] = ("latency", needs.latency)
    found["training seconds"] = ("hours", 3600 * needs.hours)
    found.setdefault("ms a question", ("latency", None))
    return found | {column: found.pop(column) for column in UPDATE if column in found}
