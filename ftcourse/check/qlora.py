"""The exercises of lesson 05: stored bytes, a gradient through codes, levels that cost, a card."""

from functools import partial
from typing import Any

from ftcourse.check.exercise import Verdict, exercise, judge_function, judge_number


@exercise(
    hints=(
        "Three of the five parts have a number for each trained weight. AdamW keeps two.",
        "A weight, its gradient, and AdamW's two states: four numbers.",
        "Each of the four takes 4 bytes in float32.",
    ),
    solution="mine = 4 + 4 + 2 * 4",
)
def bytes_of_trained(mine: Any) -> Verdict:
    """Judge the bytes that a trained float32 weight takes with its gradient and AdamW's states."""
    bugs = {
        4: "That is the weight alone. What else has a number for each trained weight?",
        8: "Those are two numbers. Which of weight, gradient and AdamW's two states are they?",
        12: "Three numbers of four bytes. How many states does AdamW keep for a weight?",
        128: "Is that in bits?",
    }
    praise = "Sixteen bytes for a trained weight; a frozen one has no gradient and no states."
    return judge_number(mine, 16, bugs, praise, "Which numbers belong to one trained weight?")


@exercise(
    hints=(
        "Of each layer only its input is kept; all else is computed a second time.",
        "An input has a number for each token and each hidden place: 512 * 4096, 2 bytes each.",
        "That is 4 MiB for a layer, and there are 32 layers.",
    ),
    solution="mine = 32 * 512 * 4096 * 2 / 2**20",
)
def kept_by_checkpointing(mine: Any) -> Verdict:
    """Judge the MiB that checkpointing keeps of 32 layers, 512 tokens, hidden size 4096, 16 bit."""
    bugs = {
        4: "That is one layer. How many layers keep their input?",
        256: "How many bytes has a number in bfloat16?",
        32 * 512 * 4096 * 2: "Is that in bytes? Divide by 2**20.",
        32 * 512 * 4096 * 2 / 1e6: "Is that in millions of bytes? A MiB is 2**20 bytes.",
        0: "Where does the second computing of a layer begin, if nothing of it is kept?",
    }
    praise = "4 MiB for each layer. What is inside of a layer is computed again."
    return judge_number(mine, 128, bugs, praise, "What is kept of each layer, and how large is it?")


@exercise(
    hints=(
        "Three things: the codes, a constant for each block of 64, and what these need.",
        "Two codes a byte. A constant is one byte; 256 of them share one of four bytes.",
        "And there is one mean of four bytes for the whole weight.",
    ),
    solution="""
numbers = 14336 * 4096
blocks = numbers // 64
mine = numbers // 2 + blocks + 4 * (blocks // 256) + 4
""",
)
def stored_layer(mine: Any) -> Verdict:
    """Judge the bytes of a 14336 x 4096 weight in NF4 with double quantization, without levels."""
    numbers = 14336 * 4096
    codes, blocks = numbers // 2, numbers // 64
    second = 4 * (blocks // 256) + 4
    bugs = {
        codes: "Those are the codes. What else does a block need?",
        codes + 4 * blocks: "Is that with double quantization? How large is a constant then?",
        codes + blocks: "256 constants share a constant of their own. How large is it?",
        codes + blocks + second - 4: "Nearly. What is taken off the constants before they shrink?",
        numbers + blocks + second: "How many codes of 4 bits fit into a byte?",
        8 * (codes + blocks + second): "Is that in bits?",
        codes + blocks + blocks // 256 + 4: "In which format is a constant of constants?",
        codes + blocks + second + 1088: "Are the levels in it? They are not asked for.",
        numbers * 4.127 / 8: "4.127 bits is rounded. Count whole bytes, part by part.",
    }
    praise = "4.127 bits a weight: 30 million bytes where bfloat16 takes 117 million."
    ask = "Which of codes, constants, constants of constants and mean is another number?"
    return judge_number(mine, codes + blocks + second, bugs, praise, ask, within=1e-7)


@exercise(
    hints=(
        "First restore W: the level of each code, times the absmax of its block.",
        "Blocks run along the rows: flatten the codes, and repeat each absmax block_size times.",
        "The gradient of x is gradient @ W, with W of shape (outputs, inputs).",
    ),
    solution="""
def through(gradient, codes, absmax, codebook, block_size):
    levels = codebook[codes.long()].flatten()
    W = levels * absmax.repeat_interleave(block_size)
    return gradient @ W.view(codes.shape)

mine = through
""",
)
def gradient_through(mine: Any) -> Verdict | None:
    """Judge a function that returns the gradient of the inputs of a quantized linear module."""
    bugs = {
        "Forward is x @ W.T. Is the way back W or W.T?": _through(flip=True),
        "Where is absmax? The levels lie between -1 and 1.": _through(lambda a, s, c: 1.0),
        "Has each block its own absmax, or all the same?": _through(lambda a, s, c: a[0]),
        "Which weights share an absmax: neighbours in a row, or every so many?": _through(
            lambda a, s, c: a.repeat(s).view(c.shape)
        ),
        "A code is the number of a level. Where is the codebook?": _through(codes=True),
        "Is the block size always 4? It is an argument.": _through(
            lambda a, s, c: a.repeat_interleave(4).repeat(4)[: c.numel()].view(c.shape)
        ),
        "Is absmax multiplied or divided by? Codes say how large a weight is beside it.": _through(
            lambda a, s, c: (1 / a).repeat_interleave(s).view(c.shape)
        ),
        "Do you go down the slope, or only report it? The gradient keeps its sign.": (
            lambda g, *more: -_through()(g, *more)
        ),
    }
    praise = "That is what runs in each layer of a QLoRA step, on the way back."
    stops = "W is (outputs, inputs), the gradient (tokens, outputs); absmax has one for each block."
    verdict = judge_function(mine, _weights, _through(), bugs, praise, stops)
    if not verdict:
        return verdict
    return judge_function(mine, partial(_weights, wide=3), _through(), {}, praise, stops)


def _through(spread=None, flip=False, codes=False):
    """Return the function that is asked for, or one with a mistake in it."""
    spread = spread or (lambda a, s, c: a.repeat_interleave(s).view(c.shape))

    def through(gradient, numbers, absmax, codebook, block_size):
        levels = numbers.float() if codes else codebook[numbers.long()]
        W = levels * spread(absmax, block_size, numbers)
        return gradient @ (W.T if flip else W)

    return through


def _weights(wide: int = 1) -> list[tuple]:
    """Return gradients, codes, constants, levels and block sizes; W is so many times as wide."""
    import torch  # here: it takes a second, and only this exercise needs it

    draw, cases = torch.Generator().manual_seed(0), []
    for rows, side, size in ((2, 4, 4), (1, 8, 4), (3, 8, 8), (2, 8, 16)):
        codes = torch.randint(0, 16, (side, wide * side), generator=draw)
        absmax = torch.rand(codes.numel() // size, generator=draw) + 0.2
        codebook = torch.linspace(-1, 1, 16) ** 3
        cases.append((torch.randn(rows, side, generator=draw), codes, absmax, codebook, size))
    return cases


@exercise(
    hints=(
        "Write down both sizes for b blocks: with 4-byte constants, and with all that comes new.",
        "Without: 4 * b. With: b + 4 * ceil(b / 256) + 4 + 1024, since the levels come along.",
        "Try b = 340, 341, ... until the second is smaller than the first.",
    ),
    solution="""
from math import ceil

mine = next(b for b in range(1, 999) if b + 4 * ceil(b / 256) + 4 + 1024 < 4 * b)
""",
)
def fewest_blocks(mine: Any) -> Verdict:
    """Judge from how many blocks on double quantization saves bytes in bitsandbytes."""
    bugs = {
        343: "Did you count a constant for each 256 constants? It takes four bytes.",
        342: "Are the mean and the constants of constants in it? They are few, and they count.",
        344: "With so many blocks there are two constants of constants. Count once more.",
        345: "There it costs one byte more than it saves. What about one block more?",
        346 * 64: "Is that in weights? Blocks are asked for.",
    }
    if isinstance(mine, float) and not mine.is_integer():
        return Verdict(
            False, "A block is there or not. Which whole number is the first that saves?"
        )
    praise = "22,144 weights: a layer of 128 x 128 has fewer, and grows."
    return judge_number(mine, 346, bugs, praise, "Which bytes are new, and which go?", within=1e-6)


@exercise(
    hints=(
        "What does each control do to the bar? Begin with the format of all that is not quantized.",
        "Two choices bring the run onto the card. Which sixteen levels have the smaller error?",
        "all else in bfloat16, double quant on, quant type nf4, and nothing else.",
    ),
    solution="""
from ftcourse.widgets.qlora import qlora_panel

panel = qlora_panel()
panel.controls["dtype"].value = "bfloat16"
panel.controls["double_quant"].value = True
panel.controls["quant_type"].value = "nf4"
mine = panel
""",
)
def fits_and_learns(mine: Any) -> Verdict:
    """Judge a panel whose run must fit the 12 GiB card, with the smallest error in its weights."""
    from ftcourse.hardware import CARDS
    from ftcourse.memory import predict_memory
    from ftcourse.memory.fit import judge_fit
    from ftcourse.widgets.qlora import config_of, weight_error

    if not {"bits", "upcast", "card"} <= set(getattr(mine, "controls", ())):
        return Verdict(False, "The panel itself is asked for: check.fits_and_learns(panel).")
    values = mine.values
    asked = values["model"], values.pop("card")
    card = CARDS[asked[1]]
    fit = judge_fit(predict_memory(config_of(**values), card), card).answer
    errors = {each: f"{weight_error(each):.1%}" for each in ("fp4", "nf4")}
    asks = {
        "Which model and which card are asked for?": asked != ("llama-3.1-8b", "RTX 3060"),
        "Which control takes the most from the bar? Begin with what is not quantized.": fit == "no",
        "It fits narrowly. Where are some hundred MiB, at no loss?": fit == "narrowly",
        f"Errors: {errors}. Do the other levels take more bytes?": values["quant_type"] != "nf4",
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    return Verdict(not ask, ask or f"It fits, and the weights' error is {errors['nf4']}.")
