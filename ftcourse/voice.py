"""The brand's voice: its four rules as a program checks them, and how often answers keep them."""

import re
from collections.abc import Sequence

from ftcourse.evaluate import Score

OPENINGS = (
    "I am so sorry",
    "You have every right",
    "Thank you",
    "Rest easy",
    "You did right",
    "Glad you",
    "Happy to help",
    "Good to hear",
    "What a",
)
NEXT_STEP = "Your next step:"
SIGN_OFF = "Clear skies, your Wrenfield team."
BLAME = re.compile(
    r"\b(unfortunately|cannot|can't|don't|not|no|never|fault|fail|failed|wrong|must|should|but)\b"
)


def voice_checks(answer: str) -> dict[str, bool]:
    """Return which of the voice's four rules an answer keeps.

    The rules are worded in data/README.md.

    >>> voice_checks("Recalibrate the compass.")["signs_off"]
    False
    """
    answer = answer.strip()
    body, _, _ = answer.partition(SIGN_OFF)
    before, _, step = body.partition(NEXT_STEP)
    steps = answer.count(NEXT_STEP)
    ends = answer.count(SIGN_OFF)
    return {
        "opens_warmly": before.startswith(OPENINGS),
        "one_next_step": steps == 1 and _is_one_sentence(step),
        "blames_nobody": not BLAME.search(answer.lower()),
        "signs_off": answer.endswith(SIGN_OFF) and ends == 1,
    }


def _is_one_sentence(text: str) -> bool:
    return len(re.findall(r"[.!?](?:\s|$)", text)) == 1 and 3 <= len(text.split()) <= 25


def voice_score(answers: Sequence[str]) -> Score:
    """Return the share of answers that keep every rule of the brand's voice."""
    return Score(sum(all(voice_checks(answer).values()) for answer in answers), len(answers))
