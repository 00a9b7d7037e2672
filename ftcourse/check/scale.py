"""The exercises of lesson 09: two on lesson 08, a shard's bytes, its rows, a balance, the panel."""

from collections.abc import Callable
from math import ceil
from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_function, judge_number
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import Fit, judge_fit
from ftcourse.scale import COUNTS, step_seconds

CARD = "RTX 4090"
KEPT = {"model": "llama-3.1-70b", "method": "qlora", "card": CARD, "texts": 1, "length": 2048}


def _judge_word(mine: Any, right: str, asks: dict[str, str], praise: str) -> Verdict:
    """Judge a word; one that is none of the choices is told which there are."""
    choices = " or ".join(f'"{word}"' for word in sorted([right, *asks]))
    if not isinstance(mine, str):
        return Verdict(False, f"A word is asked for: {choices}. Is yours {a_type(mine)}?")
    word = " ".join(mine.lower().split()).strip("'\".").removeprefix("the ")
    if word in (right, right.removesuffix("s")):
        return Verdict(True, praise)
    return Verdict(False, asks.get(word, f"Choose {choices}."))


@exercise(
    hints=(
        "Each of the two is a reason for doubt. Which one may a careful table leave out?",
        "Lesson 8 compared the two intervals, and took one of them.",
        "It took the wider one. How wide is each of these two?",
    ),
    solution='mine = "questions"',
)
def doubt_in_the_table(mine: Any) -> Verdict:
    """Judge which interval stands in the table of lesson 08: 86 to 95 %, or 89 to 94 %."""
    asks = {
        "seeds": "That interval is 5 points wide. How wide is the other one, and which is careful?",
        "both": "Both together would be wider still. Which single one did the table take?",
    }
    praise = "The wider one. In other columns it is that of the seeds."
    return _judge_word(mine, "questions", asks, praise)


@exercise(
    hints=(
        "Was the rule understood, or did any words before the question disturb the adapter?",
        "The kettle protected as well as the rule did.",
        "So compared with no sentence, it told ...",
    ),
    solution='mine = "fewer"',
)
def kettle(mine: Any) -> Verdict:
    """Judge what a sentence without meaning did to the secrets that an adapter told."""
    asks = {
        "as many": "So only the rule would protect. What did 192 questions with a kettle show?",
        "more": "Did it begin to talk? The adapter had met no words before a question. What then?",
    }
    praise = "As few as with the rule. So compare a defence with a sentence that means nothing."
    return _judge_word(mine, "fewer", asks, praise)


@exercise(
    hints=(
        "How many numbers does a full fine-tune keep for each weight, from step to step?",
        "Weight, gradient, and AdamW's two: four numbers, here of 4 bytes each.",
        "7 billion weights of 16 bytes are 112 GB, and four cards share them.",
    ),
    solution="mine = 7 * 16 / 4",
)
def gb_on_each_of_four(mine: Any) -> Verdict:
    """Judge the GB that FSDP keeps on each of 4 cards: 7 billion weights, full, float32, AdamW."""
    bugs = {
        112: "That is what DDP keeps on each card. What does FSDP do with it?",
        7: "Those are the weights alone. What else does the model have for each of them?",
        14: "Two numbers of 4 bytes, or four of 2? float32 has 4, and how many numbers are there?",
        21: "Three numbers a weight. Which one lacks: weight, gradient, or one of AdamW's two?",
        28e9 / 2**30: "That is in GiB. A GB has 10**9 bytes.",
        28e9: "That is in bytes. How many GB are they?",
        448: "Is it more on each of four cards than on one?",
        16: "That is how many bytes a weight needs. How many weights are on a card?",
    }
    praise = "A quarter of 112. What is gathered for a moment, and the activations, come on top."
    return judge_number(mine, 28, bugs, praise, "Which four numbers does a weight have?")


@exercise(
    hints=(
        "How many rows does process 0 get? Remember five rows for four processes: 2, 2, 1, none.",
        "All get as many as the first, ceil(rows / world_size), as long as there are some.",
        "size = ceil(rows / n); process k gets min(size, rows - k * size) rows, but never below 0.",
    ),
    solution="""
def held(rows, columns, world_size, process):
    size = -(-rows // world_size)
    left = rows - process * size
    return max(0, min(size, left)) * columns

mine = held
""",
)
def numbers_held(mine: Any) -> Verdict | None:
    """Judge a function for how many numbers of a matrix a process really holds, without padding."""
    bugs: dict[str, Callable] = {
        "With padding, yes. What does the last one hold?": lambda r, c, n, k: ceil(r / n) * c,
        "Five rows for two: who holds the row that is left?": lambda r, c, n, k: r // n * c,
        "The rest goes to the first ones. How did chunk cut five rows for four?": (
            lambda r, c, n, k: (r // n + (k < r % n)) * c
        ),
        "The rest goes to the last one. How many rows did chunk give the first?": (
            lambda r, c, n, k: (r // n + (k == n - 1) * (r % n)) * c
        ),
        "Fewer than no rows? Try 5 rows, 4 processes, the last one.": (
            lambda r, c, n, k: min(ceil(r / n), r - k * ceil(r / n)) * c
        ),
        "Is a matrix cut by its rows, or by its columns?": lambda r, c, n, k: _held(c, r, n, k),
        "How many numbers has a row?": lambda r, c, n, k: _held(r, 1, n, k),
        "Is a row cut in the middle?": lambda r, c, n, k: _held(r * c, 1, n, k),
        "Is the first process number 0, or 1?": lambda r, c, n, k: _held(r, c, n, k - 1),
        "May a shard be a fraction of a number?": lambda r, c, n, k: r * c / n,
        "Are these bytes? How many numbers?": lambda r, c, n, k: 4 * _held(r, c, n, k),
    }
    praise = "As torch.chunk cuts, on all cases. What is missing to a full shard is padding."
    stops = "It is given four numbers: rows, columns, world_size, process."
    return judge_function(mine, _matrices, _held, bugs, praise, stops)


def _held(rows: int, columns: int, world_size: int, process: int) -> int:
    size = ceil(rows / world_size)
    return max(0, min(size, rows - process * size)) * columns


def _matrices() -> list[tuple[int, int, int, int]]:
    shapes = [(5, 3, 2), (5, 3, 4), (8, 2, 4), (6, 7, 4), (1, 9, 2), (1536, 128, 8)]
    return [(*shape, process) for shape in shapes for process in range(shape[2])]


@exercise(
    hints=(
        "Which of the two numbers grows with the texts, and which one does not?",
        "Computing grows with each text; what FSDP gathers are weights, whatever is read.",
        "Divide the seconds of sending by the seconds of computing for one text; round up.",
    ),
    solution="""
from math import ceil

from ftcourse.check.scale import balance

computing, sending = balance()
mine = ceil(sending / computing)
""",
)
def texts_to_balance(mine: Any) -> Verdict:
    """Judge from how many texts a pass on computing takes as long as sending, LoRA with FSDP."""
    computing, sending = balance()
    share = sending / computing
    right = ceil(share)
    bugs: dict[float, str] = {
        share: "Texts come whole. Is computing the longer one at this many, or at the next?",
        right - 1: "Near. With so many, which of the two still takes longer?",
        right + 1: "Near. Is there a smaller number that is enough?",
        1: "That is the run as it is. Which of the two takes longer there?",
        1 / share: "That is the share of computing in sending. Which way round is it asked?",
        2 * right: "Does sending grow with the texts, too? What is gathered?",
        512 * right: "Are those tokens? How many texts of 512 are they?",
    }
    praise = "Only texts in one pass count: each pass of an accumulated step gathers it all again."
    other = "How often do the seconds of computing one text go into those of sending?"
    return judge_number(mine, right, bugs, praise, other, within=1e-3, asked="A number of texts")


def balance() -> tuple[float, float]:
    """Return the seconds of computing and sending of the exercise's run, for one text."""
    run = FinetuneConfig("llama-3.1-8b", "lora", dtype="bfloat16", batch_size=1, max_length=512)
    found = step_seconds(run, CARDS["A100 80GB"], 2, "fsdp")
    return found.computing, found.sending


@exercise(
    hints=(
        "DDP puts all weights on each card. Which sharding does not?",
        "What do the activations of one text consist of at the peak? Lesson 4 had a change for it.",
        "FSDP, the loss in chunks; then try 2, 4 and 8 GPUs, the fewest first.",
    ),
    solution="""
from ftcourse.check.scale import KEPT, fewest
from ftcourse.widgets.scale import scale_panel

panel = scale_panel()
settings = KEPT | {"sharding": "fsdp", "loss": "chunked", "GPUs": fewest()}
for name, value in settings.items():
    panel.controls[name].value = value
mine = panel
""",
)
def seventy_on_small_cards(mine: Any) -> Verdict:
    """Judge a panel: a 70B model, QLoRA, on as few cards of 24 GB as possible."""
    if not {*KEPT, "GPUs", "sharding", "loss"} <= {*getattr(mine, "controls", ())}:
        return Verdict(False, "The panel itself is asked for: seventy_on_small_cards(panel).")
    values = mine.values
    for name, asked in KEPT.items():
        if values[name] != asked:
            return Verdict(False, f"{name} is {values[name]}. Does it also work with {asked}?")
    count, sharding, loss = values["GPUs"], values["sharding"], values["loss"]
    fit = _seventy(count, sharding, loss)
    asks = {
        "Each card holds the whole model there. Which sharding does not?": sharding == "ddp",
        "Must the scores of all words be in memory at once?": loss == "full",
        "Who could hold another part of it?": fit.answer != "yes",
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    if fit.answer != "yes":
        return Verdict(False, f"{fit!r} {ask}")
    if count > fewest():
        return Verdict(False, f"It fits. {ask or 'Does it also fit with fewer GPUs?'}")
    return Verdict(True, f"{fit!r} Which link would you want between them? Look at the text.")


def _seventy(count: int, sharding: str, loss: str) -> Fit:
    run = FinetuneConfig("llama-3.1-70b", "qlora", batch_size=1, max_length=2048, loss=loss)
    return judge_fit(predict_memory(run, CARDS[CARD], count, sharding), CARDS[CARD])


def fewest() -> int:
    """Return the fewest GPUs of the menu that hold the target of the panel."""
    return next(n for n in COUNTS if _seventy(n, "fsdp", "chunked").answer == "yes")
