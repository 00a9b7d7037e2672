"""The exercises of lesson 00: the bytes of the weights, a run that must fit, a part that stays."""

import math
from numbers import Real
from typing import Any

from ftcourse.check.exercise import Verdict, exercise
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS, GIB
from ftcourse.memory import PARTS, predict_memory, show_bytes
from ftcourse.memory.fit import judge_fit
from ftcourse.shape import ModelShape, parameter_count


@exercise(
    hints=(
        "Three numbers decide it: how many weights, bytes a weight, bytes a GiB.",
        "The model has 8.03 billion weights, and 16 bits are two bytes.",
        "Multiply the weights by 2 and divide by 2**30.",
    ),
    solution="8.03e9 * 2 / 2**30",
)
def weight_gib(mine: Any) -> Verdict:
    """Judge how many GiB the weights of Llama-3.1-8B take at 16 bits a weight."""
    if isinstance(mine, bool) or not isinstance(mine, Real):
        return Verdict(False, f"A number of GiB is asked for. Is yours a {type(mine).__name__}?")
    if not math.isfinite(mine):
        return Verdict(False, f"A finite number of GiB is asked for. How did you compute {mine}?")
    count = parameter_count(ModelShape.named("llama-3.1-8b"))
    truth = 2 * count / GIB
    if _near(mine, truth):
        return Verdict(True, f"{truth:.2f} GiB, before anything is trained.")
    bugs = {
        2 * count / 10**9: "Did you divide by 10**9? A GiB is 2**30 bytes.",
        16 * count / GIB: "Did you multiply by 16? Eight bits make one byte.",
        16 * count / 10**9: "Did you multiply by 16? Eight bits make one byte.",
        4 * count / GIB: "Did you take four bytes a weight? That is 32 bits.",
        4 * count / 10**9: "Did you take four bytes a weight? That is 32 bits.",
        count / GIB: "Did you take one byte a weight? That is 8 bits.",
        count / 2 / GIB: "Did you take half a byte a weight? That is 4 bits.",
        2 * count: "Is that in bytes? A GiB is 2**30 of them.",
        2 * count / 2**20: "Is that in MiB? A GiB is 1024 of them.",
        count / 10**9: "Is that the number of weights, in billions? Each takes two bytes.",
        count: "Is that the number of weights? Each takes two bytes.",
    }
    size = "too much" if mine > truth else "too little"
    other = f"That is {size}. How many weights, how many bytes a weight, how many bytes a GiB?"
    return Verdict(False, next((says for bug, says in bugs.items() if _near(mine, bug)), other))


def _near(mine: Real, value: float) -> bool:
    """Return whether an answer is within one percent, which leaves room for rounding."""
    return math.isclose(mine, value, rel_tol=0.01)


TOO_LARGE = FinetuneConfig(model="llama-3.1-8b", method="lora", batch_size=4, max_length=1024)


@exercise(
    hints=(
        "Look at predict_memory(config, card=CARDS['T4']): which part alone fills the card?",
        "Neither batch nor length touches the weights. Which method stores them in 4 bits?",
        "Only one field must change: method.",
    ),
    solution="FinetuneConfig(model='llama-3.1-8b', method='qlora', batch_size=4, max_length=1024)",
)
def fits_t4(mine: Any) -> Verdict:
    """Judge a config that must fit a T4 with the model, length and batch of ``TOO_LARGE``."""
    if not isinstance(mine, FinetuneConfig):
        kind = type(mine).__name__
        return Verdict(False, f"A FinetuneConfig is asked for. Is yours a {kind}?")
    if mine.model != TOO_LARGE.model:
        return Verdict(False, f"Is {mine.model} the model that was asked for?")
    if mine.max_length != TOO_LARGE.max_length:
        return Verdict(False, "Would the model still see 1024 tokens of a dialogue?")
    if mine.batch_size * mine.gradient_accumulation_steps != TOO_LARGE.batch_size:
        return Verdict(False, "Would each step still learn from 4 sequences?")
    card = CARDS["T4"]
    needed = predict_memory(mine, card)
    if judge_fit(needed, card).answer != "no":
        spare = show_bytes(card.memory - needed.allocated)
        return Verdict(True, f"It fits with {spare} to spare.")
    over = f"It is {show_bytes(needed.allocated - card.memory)} over."
    if needed.weights > card.memory:
        ask = f"The weights alone take {show_bytes(needed.weights)}: what would make them smaller?"
    else:
        ask = f"The largest part: {needed.largest_part}. Which choices make that part smaller?"
    return Verdict(False, f"{over} {ask}")


@exercise(
    hints=(
        "Compare the two bars part by part: which long part is about as long as before?",
        "LoRA trains fewer numbers, but does it read fewer tokens? Which part counts tokens?",
        "It is what the forward pass computes and the backward pass still needs.",
    ),
    solution="'activations'",
)
def unshrunk_part(mine: Any) -> Verdict:
    """Judge which part stays large when LoRA replaces a full fine-tune of a small model."""
    if not isinstance(mine, str) or mine.strip().lower() not in PARTS:
        return Verdict(False, f"One of five words is asked for: {', '.join(PARTS)}. Which is it?")
    asks = {
        "weights": "They did not shrink, but how much of the longer bar are they?",
        "gradients": "Has a frozen weight a gradient?",
        "optimizer": "For how many numbers does it keep its states, before and after?",
        "overhead": "Can you find it in the picture at all?",
    }
    says = "They grow with the tokens in a batch, whatever is trained."
    part = mine.strip().lower()
    return Verdict(part == "activations", asks.get(part, says))
