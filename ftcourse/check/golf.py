"""Judges the rounds of VRAM golf, one exercise for each course."""

from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise
from ftcourse.config import FinetuneConfig

_SOLUTION = """
from ftcourse.config import FinetuneConfig
from ftcourse.golf import COURSES, play

config = FinetuneConfig({choices})
mine = play(config, COURSES["{course}"])
"""
_GREEN = """
    method="lora", dtype="float32", learning_rate=1e-2, batch_size=1, max_steps=160
"""
_LAKE = """
    method="full", dtype="bfloat16", optimizer="adafactor", learning_rate=1e-3,
    batch_size=1, max_steps=160
"""
_CLIFF = """
    method="qlora", rank=2, alpha=4, dtype="bfloat16", optimizer="adafactor",
    learning_rate=1e-2, batch_size=1, max_steps=160, max_length=96
"""


@exercise(
    hints=(
        "Play any round, and look at the parts. Which one is the largest that you can change?",
        "The activations grow with the letters in a batch. As many letters can be more steps.",
        "160 steps with batch_size=1, and a rate of 1e-2, as LoRA needs on this model.",
    ),
    solution=_SOLUTION.format(choices=_GREEN, course="green"),
)
def green(mine: Any) -> Verdict:
    """Judge a score on the green."""
    return _judge(mine, "green")


@exercise(
    hints=(
        "All weights are trained. Which part is as large as they are, and which twice as large?",
        "sgd keeps no states, and adafactor one number for a row or a column. And the dtype?",
        "adafactor in bfloat16: 160 steps with batch_size=1, and a rate of 1e-3.",
    ),
    solution=_SOLUTION.format(choices=_LAKE, course="lake"),
)
def lake(mine: Any) -> Verdict:
    """Judge a score on the lake."""
    return _judge(mine, "lake")


@exercise(
    hints=(
        "Which method stores a frozen weight in the fewest bits, and a number format in 16?",
        "Then the logits of one letter are the largest tensor. How many rows have they?",
        "qlora, bfloat16, one letter a step; max_length 70 to 100, a rate from 5e-3 to 2e-2.",
    ),
    solution=_SOLUTION.format(choices=_CLIFF, course="cliff"),
)
def cliff(mine: Any) -> Verdict:
    """Judge a score on the cliff."""
    return _judge(mine, "cliff")


_PARTS = {
    "weights": "In how many bits is a weight stored, and how many numbers has the adapter?",
    "gradients": "Every trained number has one. How many are trained, and in which format?",
    "optimizer": "How many numbers does this optimizer keep for a trained one? Which keeps fewer?",
    "activations": "How many letters are in a batch, how long is the longest, and what is kept?",
    "overhead": "What does this optimizer make for a moment when it steps?",
}


def _judge(mine: Any, name: str) -> Verdict:
    from ftcourse.golf import COURSES, Score, was_played  # here: torch takes a second to import
    from ftcourse.memory.breakdown import show_bytes

    course = COURSES[name]
    if isinstance(mine, FinetuneConfig):
        play = f'score = play(config, COURSES["{name}"])'
        return Verdict(False, f"That is a config. Play it first, for half a minute: {play}.")
    if not isinstance(mine, Score):
        return Verdict(False, f"A score is asked for, as play returns it. Is yours {a_type(mine)}?")
    if mine.course != course:
        return Verdict(False, f'That was {mine.course}. Is this COURSES["{name}"], as it was?')
    if not was_played(mine):
        return Verdict(False, "play did not make this score. What does play give for its config?")
    if mine.split != "test":
        return Verdict(False, "That was practice. What does it give on the test letters?")
    if mine.peak > course.budget:
        part, over = mine.breakdown.largest_part, show_bytes(mine.peak - course.budget)
        largest = f"The largest part at the peak, {mine.breakdown.moment}, are the {part}."
        return Verdict(False, f"{over} over the budget. {largest} {_PARTS[part]}")
    if not mine.passed:
        return Verdict(False, f"The loss is {mine.loss:.2f}, {_missed(mine)}")
    peak, par = show_bytes(mine.peak), show_bytes(course.par)
    if mine.peak < course.par:
        return Verdict(True, f"{peak}: under par ({par}). That is lower than all that we tried.")
    return Verdict(True, f"{peak}; par is {par}. What would save the next byte?")


def _missed(mine: Any) -> str:
    """Return by how much a round missed the loss, and a question about what it did."""
    config, target = mine.config, mine.course.target
    letters = config.max_steps * config.batch_size * config.gradient_accumulation_steps
    if not mine.loss < 4:
        ask = "about as before the training. Was the rate too low, or so high that the run broke?"
    elif letters < mine.course.letters:
        ask = f"{mine.loss - target:.2f} too high. Only {letters} letters taught it. Why not more?"
    elif config.max_steps < letters // 2:
        steps = f"{config.max_steps} steps of {letters // config.max_steps}"
        ask = f"{mine.loss - target:.2f} too high, after {steps}. What would more steps give?"
    elif config.max_length < 100:
        cut = f"after letters cut at {config.max_length} tokens. Who teaches it how a letter ends?"
        ask = f"{mine.loss - target:.2f} too high, {cut}"
    else:
        ask = f"{mine.loss - target:.2f} too high. Which rate does this optimizer need?"
    return ask
