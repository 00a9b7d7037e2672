"""The exercises of lesson 01: bits of constants, blocks, zero points, and what stays large."""

import math
from typing import TYPE_CHECKING, Any

from ftcourse.check.exercise import Verdict, exercise, judge_function, judge_number

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor

FEW, ENOUGH = 4.3, 200  # the panel's target: bits a weight, and questions of 239


@exercise(
    hints=("Lesson 0, By hand.", "Only the right word gets a minus one.", "0.3 less 1."),
    solution="mine = 0.3 - 1",
)
def recall_slope(mine: Any) -> Verdict:
    """Judge the gradient of the right word's score when its probability is 0.3."""
    bugs = {
        0.3: "That is the slope of a wrong word. What did the right one get on top?",
        0.7: "How far is right. Which sign makes a step against the gradient raise the score?",
        -math.log(0.3): "That is the loss. Its slope with respect to the score is asked for.",
        -1: "Is the probability already in your number?",
    }
    other = "Which two numbers make it: what the model gave, and what was right?"
    return judge_number(mine, -0.7, bugs, "Minus 0.7: against it, the score grows.", other)


@exercise(
    hints=("Weight, gradient, optimizer: count each.", "AdamW remembers two.", "1 + 1 + 2."),
    solution="mine = 1 + 1 + 2",
)
def recall_numbers(mine: Any) -> Verdict:
    """Judge how many numbers a full fine-tune with AdamW has for each weight in its step."""
    bugs = {
        1: "That is the weight alone. What does its training add?",
        2: "How many numbers does AdamW remember for each weight?",
        3: "Did you count the weight itself, its gradient, and both of AdamW's numbers?",
    }
    other = "Weights, gradients, optimizer: how many numbers has each part for one weight?"
    return judge_number(
        mine, 4, bugs, "One, one and two. This lesson is about the first one.", other
    )


@exercise(
    hints=(
        "Which levels suit these weights? And must each group of 64 have an absmax of its own?",
        "A row has 128 weights or more: its absmax costs a quarter of a bit or less.",
        "scheme normal levels, bits 4, block row.",
    ),
    solution="""
from ftcourse.widgets.quantize import quantize_panel

mine = quantize_panel()
for name, value in {"scheme": "normal", "bits": 4, "block": "row"}.items():
    mine.controls[name].value = value
""",
)
def few_bits(mine: Any) -> Verdict:
    """Judge a panel that must show few bits a weight with which the model still reads."""
    if not hasattr(mine, "controls") or "scheme" not in mine.controls:
        return Verdict(False, "The panel itself is asked for: check.few_bits(panel).")
    from ftcourse.widgets.quantize import recorded  # here: it imports torch

    values = mine.values
    if values["scheme"] == "fp4" and values["bits"] != 4:
        return Verdict(False, "FP4 has 4 bits. Which other scheme puts levels where weights are?")
    run = recorded(values["scheme"], values["bits"], values["block"])
    bits, right = run["bits_per_weight"], run["right"]
    says = f"{bits:.2f} bits a weight, and {right} of {run['count']} questions right."
    if bits < FEW and right >= ENOUGH:
        return Verdict(True, f"{says} In 32 bits it was 228.")
    if bits >= FEW:
        many = f"How many bits has a code below {FEW} at most?"
        ask = many if values["bits"] > 4 else "How many weights share one constant of 32 bits?"
    elif values["bits"] < 4:
        ask = "Do that few levels ever suffice?"
    elif values["block"] == "tensor":
        ask = "What does the largest weight of a matrix do to the others?"
    else:
        ask = "Do the levels stand where the weights are?"
    return Verdict(False, f"{says} {ask}")


@exercise(
    hints=(
        "Three kinds of bits: the code's own, its share of an 8-bit constant, and one share more.",
        "32 weights share 8 bits. And 256 such constants share 32 bits.",
        "bits_per_weight(4, block_size=32, double_quant=True), or 4 + 8 / 32 + 32 / (32 * 256).",
    ),
    solution="mine = 4 + 8 / 32 + 32 / (32 * 256)",
)
def constant_bits(mine: Any) -> Verdict:
    """Judge the bits of a weight with blocks of 32 and double quantization."""
    first, second = 8 / 32, 32 / (32 * 256)
    bugs = {
        4: "Are the constants counted?",
        4 + first: "Are the constants of the constants counted? 256 of them share 32 bits.",
        4 + 32 / 32: "Are the constants quantized too? They have 8 bits here, not 32.",
        4 + 8 / 64 + 32 / (64 * 256): "Is that with blocks of 64? Here a block has 32 weights.",
        first + second: "Those are the bits of the constants. And the code itself?",
    }
    other = "A code, its share of a constant, and its share of that one's: what is each?"
    praise = f"{4 + first + second:.3f} bits: a block of half the size costs an eighth of a bit."
    return judge_number(mine, 4 + first + second, bugs, praise, other)


@exercise(
    hints=(
        "weight.view(-1, size) has a row for each block; .abs().amax(1, keepdim=True) is absmax.",
        "With 4 bits the integers go from -7 to 7: one step is absmax / 7.",
        "step = absmax / (2 ** (bits - 1) - 1), and then (blocks / step).round() * step.",
    ),
    solution="""
def restore_blocks(weight, bits, size):
    blocks = weight.view(-1, size)
    step = blocks.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return ((blocks / step).round() * step).view(-1)

mine = restore_blocks
""",
)
def restore_blocks(mine: Any) -> Verdict:
    """Judge a function that rounds weights to integers block by block, and restores them."""
    bugs = {
        "Is your scale the block's absmax, or the tensor's?": _blocks(whole=1),
        "Is -0.9 larger than 0.5 where you look for absmax?": _blocks(signed=1),
        "Where is the sign of the negative weights?": _blocks(lost=1),
        "Is one of the bits left for the sign? 4 bits have 7 steps on each side.": _blocks(bit=0),
        "On one side there are 2 ** (bits - 1) - 1 steps. Where is the minus one?": _blocks(one=0),
        "Do you round to the nearest integer, or cut off the rest?": _blocks(cut=1),
        "Those are the codes. What makes weights of them again?": _blocks(codes=1),
    }
    praise = "Equal on five tensors, with blocks of 2 to 8. A block pays for its own outlier only."
    return judge_function(mine, _block_cases, _blocks(), bugs, praise)


def _blocks(whole=0, signed=0, lost=0, bit=1, one=1, cut=0, codes=0):
    """Return the function that is asked for, or one with a mistake in it."""

    def restore(weight: "Tensor", bits: int, size: int) -> "Tensor":
        blocks = weight.view(-1, size)
        sizes = blocks if signed else blocks.abs()
        absmax = sizes.max() if whole else sizes.amax(1, keepdim=True)
        step = absmax / (2 ** (bits - bit) - one)
        found = (blocks.abs() if lost else blocks) / step
        found = found.trunc() if cut else found.round()
        return (found if codes else found * step).flatten()

    return restore


def _block_cases() -> list[tuple]:
    import torch

    generator = torch.Generator().manual_seed(0)
    signs = torch.tensor([1.0, -1.6])  # in each block the largest weight is negative
    sizes = ((8, 4, 4), (8, 3, 2), (24, 4, 8), (12, 8, 6), (12, 2, 4))
    weights = [torch.randn(n, generator=generator).abs() * signs.repeat(n // 2) for n, *_ in sizes]
    return [(weight, *rest) for weight, (_, *rest) in zip(weights, sizes, strict=True)]


@exercise(
    hints=(
        "The lowest weight becomes 0 and the highest 2**bits - 1: how much is one step?",
        "zero_point = (-weight.min() / scale).round() is the integer that means 0.",
        "codes = (weight / scale).round() + zero_point, none below 0 or above 2**bits - 1 (clamp).",
    ),
    solution="""
def restore_affine(weight, bits):
    scale = (weight.max() - weight.min()) / (2**bits - 1)
    zero_point = (-weight.min() / scale).round()
    codes = (weight / scale).round() + zero_point
    return (codes.clamp(0, 2**bits - 1) - zero_point) * scale

mine = restore_affine
""",
)
def restore_affine(mine: Any) -> Verdict:
    """Judge a function that rounds weights to integers from 0 up, and restores them."""
    bugs = {
        "Is the zero point taken away again before the codes become weights?": _affine(forgot=1),
        "Is a weight of 0 still 0? For that, the zero point is an integer.": _affine(exact=1),
        "Does a step reach from the lowest weight to the highest?": _affine(symmetric=1),
        "2**bits integers have one step less between them. Is the minus one there?": _affine(one=0),
        "Do negative weights have a code? What must be added before they do?": _affine(lost=1),
        "Those are the codes. What makes weights of them again?": _affine(codes=1),
    }
    praise = "Equal on four tensors: codes reach from 0 to 2**bits - 1, and zero stays zero."
    return judge_function(mine, _affine_cases, _affine(), bugs, praise)


def _affine(forgot=0, exact=0, symmetric=0, one=1, lost=0, codes=0):
    """Return the function that is asked for, or one with a mistake in it."""

    def restore(weight: "Tensor", bits: int) -> "Tensor":
        most = 2**bits - one
        reach = 2 * weight.abs().max() if symmetric else weight.max() - weight.min()
        scale = reach / most
        zero = 0 * scale if lost else -weight.min() / scale
        zero = zero if exact else zero.round()
        found = (weight / scale + zero).round() if exact else (weight / scale).round() + zero
        found = found.clamp(0, 2**bits - 1)
        return found if codes else (found - (0 if forgot else zero)) * scale

    return restore


def _affine_cases() -> list[tuple]:
    import torch

    generator = torch.Generator().manual_seed(1)
    ends = ((9, 4, -0.7, 2), (6, 3, -1, 3), (20, 8, -2, 0.8), (12, 4, -3, 1))
    inside = [torch.rand(count, generator=generator) for count, *_ in ends]
    places = [torch.cat([torch.tensor([0, 1]), each]) for each in inside]
    return [(low + (high - low) * x, b) for x, (_, b, low, high) in zip(places, ends, strict=True)]


@exercise(
    hints=(
        "bitsandbytes quantizes linear layers. What else has a model?",
        "What turns a token's number into a vector is no linear layer. How large is it?",
        "It is the table with a row for each token: the embeddings.",
    ),
    solution="mine = 'embeddings'",
)
def kept_part(mine: Any) -> Verdict:
    """Judge which part of a small model holds up its size when the rest has 4 bits."""
    part = mine.lower() if isinstance(mine, str) else ""
    if ("embed" in part or "vocab" in part) and "not" not in part:
        return Verdict(True, "A large vocabulary and a small hidden size: it is most of the rest.")
    asks = {
        "head": "This model's output head is the same tensor as another one. Which?",
        "norm": "A norm has one number for each hidden unit. How many bytes is that?",
        "constant": "They were counted: an eighth of a bit a weight. What has 16 bits still?",
        "linear": "The linear layers did become almost four times smaller. What did not?",
    }
    ask = next((asks[word] for word in asks if word in part), "Which weights are not quantized?")
    return Verdict(False, ask)
