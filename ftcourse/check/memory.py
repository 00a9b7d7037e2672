"""The exercises of lesson 04: logits, what an MLP saves, a run that must fit, a peak that falls."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any

from ftcourse.check.exercise import Verdict, exercise, judge_function, judge_number
from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.memory.parameters import PAGED_FROM

CARD = "RTX 3060"
KEPT = {"card": CARD, "model": "llama-3.1-8b", "method": "qlora", "bits": 4, "rank": 64}
KEPT |= {"max_length": 4096}
TEXTS = 4


@exercise(
    hints=(
        "What must an adapter be so that it can move into a weight, which is one matrix?",
        "A matrix gives minus the output for minus the input. Which of the three does not?",
        "One of them has a bend, a relu, between its two matrices.",
    ),
    solution='mine = "bottleneck"',
)
def unmergeable(mine: Any) -> Verdict:
    """Judge which of LoRA, IA3 and a bottleneck cannot be merged into the weights."""
    if not isinstance(mine, str):
        return Verdict(False, 'A name is asked for, as text: "LoRA", "IA3" or "bottleneck".')
    word = "".join(c for c in mine.lower() if c.isalnum() or c == " ").strip()
    word = word.removeprefix("the ").removeprefix("a ").removesuffix(" adapter").removesuffix("s")
    questions = {
        "lora": "Its two matrices multiply into one. What would keep that from being added?",
        "ia3": "A factor for each output multiplies a row. Is the weight still a matrix then?",
        "bottleneck": "The relu between its matrices makes it bend, and one matrix cannot.",
    }
    return Verdict(word == "bottleneck", questions.get(word, "LoRA, IA3 or bottleneck?"))


@exercise(
    hints=(
        "How many numbers are trained? Each virtual token is a vector as wide as the model.",
        "20 x 4096 numbers. Besides itself, what does the run keep for each of them?",
        "4 bytes for the number, 4 for its gradient, 8 for AdamW's two: 20 * 4096 * 16.",
    ),
    solution="mine = 20 * 4096 * 16",
)
def prompt_bytes(mine: Any) -> Verdict:
    """Judge the bytes that a prompt of 20 virtual tokens needs in training, in Llama 2 7B."""
    numbers = 20 * 4096
    bugs = {
        numbers: "That is how many numbers are trained. How many bytes does each need?",
        4 * numbers: "That is what the prompt itself takes. What else is kept while it is trained?",
        8 * numbers: "Number and gradient, or AdamW's states alone? Which of the three lacks?",
        12 * numbers: "Which one lacks: the number, its gradient, or one of AdamW's two?",
        16 * 4096: "That is one virtual token. How many are there?",
        16 * 20: "How wide is a virtual token? Llama 2 7B has a hidden_size of 4096.",
        32 * 16 * numbers: "That has some in each layer, as a prefix does. Where is a prompt?",
        16 * numbers / 2**20: "Is that in MiB? Bytes are asked for.",
    }
    praise = "1.25 MiB: nothing, beside a step of gigabytes. This lesson finds the rest."
    return judge_number(mine, 16 * numbers, bugs, praise)


@exercise(
    hints=(
        "Three fields cost nothing but time. And who asked for float32?",
        "One text in a pass, four passes; the loss in chunks; no upcast. The optimizer is left.",
        "batch_size 1, gradient_accumulation_steps 4, loss chunked, upcast off, adamw_8bit.",
    ),
    solution="""
settings = dict(card="RTX 3060", model="llama-3.1-8b", method="qlora", bits=4, rank=64)
settings |= dict(max_length=4096, batch_size=1, gradient_accumulation_steps=4)
settings |= dict(loss="chunked", upcast=False, gradient_checkpointing=True)
settings |= dict(optimizer="adamw_8bit", attention="sdpa")
for name, value in settings.items():
    panel.controls[name].value = value
mine = panel
""",
)
def fit_3060(mine: Any) -> Verdict:
    """Judge a panel: an 8B model must learn from 4 x 4096 tokens on a card of 12 GB."""
    if not hasattr(mine, "controls"):
        return Verdict(False, "The panel itself is asked for: check.fit_3060(panel).")
    values = {name: control.value for name, control in mine.controls.items()}
    for name, asked in KEPT.items():
        if values[name] != asked:
            return Verdict(False, f"The {name} is {values[name]}. Does it also work with {asked}?")
    known = {field.name for field in fields(FinetuneConfig)}
    try:
        config = FinetuneConfig(**{n: value for n, value in values.items() if n in known})
    except CourseError as error:
        return Verdict(False, f"These choices do not go together. {error}")
    if config.batch_size * config.gradient_accumulation_steps != TEXTS:
        return Verdict(False, f"Does a step still learn from {TEXTS} texts, over all its passes?")
    fit = judge_fit(predict_memory(config, CARDS[CARD]), CARDS[CARD])
    if fit.answer == "yes":
        return Verdict(True, f"{fit!r} Each change has its price: which one would you pay last?")
    return Verdict(False, f"{fit!r} {_ask(config)}")


def _ask(config: FinetuneConfig) -> str:
    """Return the question for the most wasteful choice that is left."""
    asks = {
        "Must each layer keep all that it computed?": not config.gradient_checkpointing,
        "Which attention writes a score for each pair of tokens?": config.attention == "eager",
        "Must the scores of all words be in memory at once?": config.loss == "full",
        "How many texts go through the model at once?": config.batch_size > 1,
        "Who asked for norms and embeddings in float32, and is it needed?": config.upcast,
        "In what format does each part have to be?": config.dtype == "float32",
        "How many bytes does AdamW keep for a number, and which optimizer keeps fewer?": True,
    }
    return next(question for question, wasteful in asks.items() if wasteful)


@exercise(
    hints=(
        "How many tokens are there, and how many words does each get a score for?",
        "4 * 2048 tokens with 128256 scores each, and a float32 has four bytes.",
        "4 * 2048 * 128256 * 4 / 2**30.",
    ),
    solution="mine = 4 * 2048 * 128256 * 4 / 2**30",
)
def logits_gib(mine: Any) -> Verdict:
    """Judge the GiB of one float32 copy of the logits, 4 texts of 2048 tokens, Llama-3.1-8B."""
    count = 4 * 2048 * 128256
    bugs = {
        count / GIB: "Is that one text, or one byte a score? There are four of both.",
        2 * count / GIB: "Two bytes are 16 bits. How many has a float32?",
        4 * count / 10**9: "Did you divide by 10**9? A GiB is 2**30 bytes.",
        4 * count: "Is that in bytes? A GiB is 2**30 of them.",
        4 * count / 2**20: "Is that in MiB? A GiB is 1024 of them.",
        12 * count / GIB: "Those are three copies. How much is one?",
        4 * 4 * 2048 * 4096 / GIB: "Is a score's row as wide as the model, or as its vocabulary?",
        16 * count / GIB: "Did you count the batch twice?",
    }
    praise = "The loss makes more than one of them, beside weights of 5.35 GiB in 4 bits."
    asked = "A number of GiB"
    return judge_number(mine, 4 * count / GIB, bugs, praise, within=0.02, asked=asked)


@exercise(
    hints=(
        "Go through the four lines, and ask of each product what its backward pass needs.",
        "x once, for two products; gate and its silu; up; and their product, for down_proj.",
        "Trained: x, gate, silu, up, product. Frozen: a product needs no input, so three remain.",
    ),
    solution="""
def mlp_saves(tokens, hidden, inner, trained):
    inputs = hidden + inner if trained else 0
    return 4 * tokens * (3 * inner + inputs)

mine = mlp_saves
""",
)
def mlp_saves(mine: Any) -> Verdict | None:
    """Judge a function that returns the bytes that a gated MLP saves in float32."""
    bugs = {
        "Is n one tensor or two, where two products keep it?": _saves(x=2),
        "What does the product behind silu keep, besides silu's own input?": _saves(inner=1),
        "silu keeps its input. What does the product behind it keep of silu?": _saves(inner=2),
        "down_proj keeps its input for the gradient of its weight. Is that trained?": (
            lambda t, h, i, trained: 4 * t * (4 * i + bool(trained) * h)
        ),
        "gate_proj and up_proj keep n for gradients of their weights. Are they trained?": (
            lambda t, h, i, trained: 4 * t * (3 * i + h + bool(trained) * i)
        ),
        "Is it the other way round? trained=False means frozen.": (
            lambda t, h, i, trained: _saves()(t, h, i, not trained)
        ),
        "Is that in MiB? Bytes are asked for.": lambda *case: _saves()(*case) / 2**20,
        "That is all that saves lists. Which are weights, and which is one tensor twice?": (
            lambda t, h, i, trained: 4 * (t * (3 * i + bool(trained) * (2 * h + i)) + 3 * h * i)
        ),
        "What does down_proj keep for the gradient of its own weight?": _saves(last=0),
        "What do gate_proj and up_proj keep for the gradients of their weights?": _saves(x=0),
        "What changes if the weights are frozen? Which tensors did only weights need?": (
            lambda t, h, i, trained: _saves()(t, h, i, True)
        ),
        "That is what a frozen MLP keeps. What is kept when its weights are trained?": (
            lambda t, h, i, trained: _saves()(t, h, i, False)
        ),
        "How many bytes does a float32 have?": lambda *case: _saves()(*case) / 4,
        "Weights are no activations: they live anyway. What is there for each token?": (
            lambda t, h, i, trained: _saves()(t, h, i, trained) + 12 * h * i
        ),
        "Does a frozen MLP keep nothing at all? Where does the gradient go through?": (
            lambda t, h, i, trained: trained * _saves()(t, h, i, True)
        ),
    }
    praise = "Equal on six MLPs. With the head of the layer you could now predict all of it."
    stops = "It is given four arguments: tokens, hidden, inner, trained."
    if _gives_other(mine):
        return Verdict(False, "One number is asked for, a sum of bytes. What does yours return?")
    return judge_function(mine, _mlps, _saves(), bugs, praise, stops)


def _gives_other(mine: Any) -> bool:
    """Return whether a function gives text or a list."""
    with suppress(Exception):  # what stops it is for judge_function to say
        return isinstance(mine(1, 2, 3, True), str | list | tuple | dict)
    return False


def _saves(x: int = 1, inner: int = 3, last: int = 1) -> Callable:
    """Return a function for the saved bytes, or one with a mistake in it."""

    def saves(tokens: int, hidden: int, width: int, trained: bool) -> int:
        return 4 * tokens * (inner * width + bool(trained) * (x * hidden + last * width))

    return saves


def _mlps() -> list[tuple[int, int, int, bool]]:
    """Return tokens, hidden, inner, and whether the weights are trained."""
    sizes = [(1, 2, 3), (512, 128, 384), (7, 5, 11)]
    return [(*each, trained) for each in sizes for trained in (True, False)]


@exercise(
    hints=(
        "Look at the optimizer's rows at rank 24 and at 25. Which matrices lost their states?",
        "States are paged from 100,000 numbers on: 24 x 4096 are fewer, 25 x 4096 are more.",
        "A matrix of this model has rank x 2048 numbers: which rank is the first with 100,000?",
    ),
    solution="mine = -(-100_000 // 2048)",
)
def paged_rank(mine: Any) -> Verdict:
    """Judge from which rank on a matrix of rank x 2048 numbers has paged states."""
    bugs = {
        9: "That is the last rank for a width of 11008. Which one reaches 100,000 at 2048?",
        10: "That is for a width of 11008. How many numbers has a matrix of 10 x 2048?",
        16: "16 x 4096 are 65,536, below 100,000. And how many are 16 x 2048?",
        25: "That is for a width of 4096. How many numbers has a matrix at this rank, and here?",
        32: "Paged at a width of 4096, yes. Does 32 x 2048 reach 100,000?",
        48: "Near: 48 x 2048 are 98,304. Does that reach 100,000?",
        100_000 / 2048: "A rank is a whole number. Is 100,000 reached at 48, or at the next one?",
        50: "Near: 50 x 2048 are 102,400. Is there a smaller rank that reaches 100,000?",
        12: "A narrower matrix has fewer numbers. Does it need a lower or a higher rank?",
        24: "That is the last rank without at a width of 4096. Which is the first at 2048?",
        100_000: "Is that how many numbers a matrix has? Which rank gives it that many?",
    }
    praise = "The states are still somewhere: in the host's memory, which allocated does not count."
    return judge_number(mine, -(-PAGED_FROM // 2048), bugs, praise)
