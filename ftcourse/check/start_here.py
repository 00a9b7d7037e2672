"""The exercises of lesson 00: bytes of weights, a run and a text that must fit, a gradient."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_function, judge_number
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS, GIB
from ftcourse.memory import PARTS, predict_memory, show_bytes
from ftcourse.memory.fit import Fit, judge_fit
from ftcourse.shape import ModelShape, parameter_count

if TYPE_CHECKING:  # torch takes a second to import, and only one exercise needs it
    from torch import Tensor

T4 = CARDS["T4"]


@exercise(
    hints=(
        "How many texts are read at once? And must the scores of all words exist at once?",
        "Move batch size to 1: activations grow with the tokens of all texts together.",
        "batch size 1, loss chunked, max length 8192.",
    ),
    solution="""
panel.controls["batch_size"].value = 1
panel.controls["loss"].value = "chunked"
panel.controls["max_length"].value = 8192
mine = panel
""",
)
def reach_8192(mine: Any) -> Verdict:
    """Judge a panel that must show a run of 8192 tokens that fits a T4."""
    if not hasattr(mine, "controls"):
        return Verdict(False, "The panel itself is asked for: check.reach_8192(panel).")
    values = {name: control.value for name, control in mine.controls.items()}
    for name, asked in {"card": "T4", "model": "llama-3.1-8b", "method": "qlora"}.items():
        if values[name] != asked:
            return Verdict(False, f"The {name} is {values[name]}. Does it also work with {asked}?")
    length = values["max_length"]
    if length < 8192:
        return Verdict(False, f"max length is {length}. What must give way before 8192 fits?")
    config = FinetuneConfig(**{name: value for name, value in values.items() if name != "card"})
    fit = _judge(config)
    if fit.answer == "yes":
        return Verdict(True, f"{fit!r} The price is time: one text in each pass.")
    if config.batch_size > 1:
        ask = "How many texts are read at once?"
    elif config.loss == "full":
        ask = "Must the scores of all words be in memory at once?"
    else:
        ask = "Which other choice keeps more than it must?"
    return Verdict(False, f"{fit!r} {ask}")


def _judge(config: FinetuneConfig) -> Fit:
    return judge_fit(predict_memory(config, T4), T4)


@exercise(
    hints=(
        "Three numbers decide it: how many weights, bytes a weight, bytes a GiB.",
        "The model has 8.03 billion weights, and 16 bits are two bytes.",
        "Multiply the weights by 2 and divide by 2**30.",
    ),
    solution="mine = 8.03e9 * 2 / 2**30",
)
def weight_gib(mine: Any) -> Verdict:
    """Judge how many GiB the weights of Llama-3.1-8B take at 16 bits a weight."""
    count = parameter_count(ModelShape.named("llama-3.1-8b"))
    truth = 2 * count / GIB
    adapter = "Did you count the adapter too? The model's own weights are asked for."
    bugs = {
        predict_memory(TOO_LARGE, T4).weights / GIB: adapter,
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
    praise = f"{truth:.2f} GiB, before anything is trained."
    other = "How many weights, how many bytes a weight, how many bytes a GiB?"
    asked = "A number of GiB"
    return judge_number(mine, truth, bugs, praise, other, within=0.01, asked=asked)


TOO_LARGE = FinetuneConfig(model="llama-3.1-8b", method="lora", batch_size=2, max_length=1024)


@exercise(
    hints=(
        "Look at predict_memory(too_large, CARDS['T4']): which part alone fills the card?",
        "Neither batch nor length touches the weights. Which method stores them in 4 bits?",
        "Only one field must change: method.",
    ),
    solution="mine = replace(too_large, method='qlora')",
)
def fits_t4(mine: Any) -> Verdict:
    """Judge a config that must fit a T4 and differs from ``TOO_LARGE`` in one field."""
    if not isinstance(mine, FinetuneConfig):
        return Verdict(False, f"A FinetuneConfig is asked for. Is yours {a_type(mine)}?")
    if mine.model != TOO_LARGE.model:
        return Verdict(False, f"Is {mine.model} the model that was asked for?")
    if mine.max_length != TOO_LARGE.max_length:
        return Verdict(False, "Would the model still see 1024 tokens of a dialogue?")
    if mine.batch_size * mine.gradient_accumulation_steps != TOO_LARGE.batch_size:
        return Verdict(False, f"Would each step still learn from {TOO_LARGE.batch_size} texts?")
    fit, changed = _judge(mine), _changed(mine)
    if fit.answer != "no":
        says = f"It fits, but you changed {' and '.join(changed)}. Which one is enough?"
        return Verdict(len(changed) == 1, repr(fit) if len(changed) == 1 else says)
    if mine.method != "qlora" and {"bits", "quant_type", "double_quant"} & set(changed):
        ask = f"Which method reads the field bits? Yours is {mine.method}."
    elif (need := predict_memory(mine, T4)).weights > T4.memory:
        ask = f"The weights alone take {show_bytes(need.weights)}: what would make them smaller?"
    else:
        ask = f"Which choices make the {need.largest_part} smaller?"
    return Verdict(False, f"{fit!r} {ask}")


def _changed(mine: FinetuneConfig) -> list[str]:
    names = [field.name for field in fields(mine)]
    return [name for name in names if getattr(mine, name) != getattr(TOO_LARGE, name)]


@exercise(
    hints=(
        "A place that is ignored teaches nothing: what is its row of the gradient?",
        "The row of every other place is its probabilities, with 1 less for the right word.",
        "The loss is a mean: divide by the number of labels that are not -100.",
    ),
    solution="""
def loss_gradient(scores, labels):
    teaches = labels != -100
    gradient = scores.softmax(1)
    gradient[teaches, labels[teaches]] -= 1
    gradient[~teaches] = 0
    return gradient / teaches.sum()

mine = loss_gradient
""",
)
def loss_gradient(mine: Any) -> Verdict:
    """Judge a function that returns the gradient of the mean loss of several words."""
    bugs = {
        "Do places with the label -100 move the scores? What is their row?": _gradient(ignored=1),
        "What is the row of a place with the label -100, and does it count in the mean?": _gradient(
            ignored=1, all=True
        ),
        "Is the loss the mean over the places that teach? Yours is their sum.": _gradient(
            sums=True
        ),
        "By how many places do you divide: by all, or by those that teach?": _gradient(all=True),
        "A step goes against the slope. Which sign has the right word's slope?": _gradient(sign=-1),
        "Where is the minus one for the right word?": _gradient(minus=0),
        "Do the probabilities of one place, a row, add up to 1?": _gradient(axis=0),
    }
    praise = "Equal to torch's cross_entropy on five cases, with ignored places among them."
    stops = "Is -100 a column of scores? Which rows may you index?"
    return judge_function(mine, _words, _gradient(), bugs, praise, stops)


def _gradient(ignored=0, sums=False, all=False, sign=1, minus=1, axis=1):
    """Return the function that is asked for, or one with a mistake in it."""

    def gradient(scores: "Tensor", labels: "Tensor") -> "Tensor":
        teaches = labels != -100
        found = scores.softmax(axis)
        found[~teaches] *= ignored
        found[teaches, labels[teaches]] -= minus
        count = 1 if sums else len(labels) if all else teaches.sum()
        return sign * found / count

    return gradient


def _words() -> list[tuple["Tensor", "Tensor"]]:
    """Return scores, shape (words, vocabulary), with labels, shape (words,); some are ignored."""
    import torch

    generator = torch.Generator().manual_seed(0)
    labels = ([2, -100, 0], [1], [-100, -100, 3, 3, 0], [0, 1], [-100, 4])
    return [
        (2 * torch.randn(len(row), 5, generator=generator), torch.tensor(row)) for row in labels
    ]


@exercise(
    hints=(
        "Compare the two bars part by part: which part fills most of both?",
        "LoRA trains fewer numbers, but does it read fewer tokens? Which part counts tokens?",
        "It is what the forward pass computes and the backward pass still needs.",
    ),
    solution="mine = 'activations'",
)
def unshrunk_part(mine: Any) -> Verdict:
    """Judge which part holds up the whole when LoRA replaces a full fine-tune of a small model."""
    part = mine.strip(" .").lower().removeprefix("the ") if isinstance(mine, str) else mine
    if part in ("activation", "weight", "gradient"):
        return Verdict(False, f"Do you mean {part}s? Write the word as the picture does.")
    if not isinstance(part, str) or part not in PARTS:
        return Verdict(False, f"One of five words is asked for: {', '.join(PARTS)}. Which is it?")
    asks = {
        "weights": "They did not shrink, but how much of the longer bar are they?",
        "gradients": "Can you find them in the picture? Which instant does it show?",
        "optimizer": "For how many numbers does it keep its states, before and after?",
        "overhead": "Can you find it in the picture at all?",
    }
    says = "They grow with the tokens in a batch, whatever is trained."
    return Verdict(part == "activations", asks.get(part, says))
