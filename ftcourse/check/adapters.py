"""The exercises of lesson 03: numbers of an adapter, its forward pass, its merge, its reach."""

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

from ftcourse.check.exercise import Verdict, exercise, judge_function, judge_number

if TYPE_CHECKING:  # torch takes a second to import, and two exercises need it
    from torch import Tensor

LAYERS, HIDDEN, INNER, SIZE = 32, 4096, 11008, 64  # Llama 2 7B, and a bottleneck's width
EXACT = 1e-6  # counts are exact, and a bias is a small part of one


@exercise(
    hints=(
        "Two matrices are trained. Which shapes have they?",
        "lora_A has a row for each rank and a column for each input; lora_B goes to the outputs.",
        "8 * 4096 numbers in lora_A, 11008 * 8 in lora_B.",
    ),
    solution="mine = 8 * (4096 + 11008)",
)
def lora_numbers(mine: Any) -> Verdict:
    """Judge how many numbers LoRA of rank 8 trains beside 4096 inputs and 11008 outputs."""
    bugs = {
        HIDDEN * INNER: "That is the frozen matrix itself. Which two thin ones stand beside it?",
        8 * HIDDEN: "That is lora_A. Is lora_B trained too?",
        8 * INNER: "That is lora_B. Is lora_A trained too?",
        8 * HIDDEN * INNER: "Does the rank multiply the frozen matrix, or its sides?",
    }
    praise = "Rank times inputs plus outputs."
    return judge_number(mine, 8 * (HIDDEN + INNER), bugs, praise, within=EXACT)


@exercise(
    hints=(
        "The model begins as it was. What must the product of both matrices be then?",
        "If one factor is zero, the product is. And one begins at random, so that both can learn.",
        "lora_A is random, and the other one is zero.",
    ),
    solution="mine = 'lora_B'",
)
def lora_begin(mine: Any) -> Verdict:
    """Judge which part of LoRA makes the model begin as it was."""
    answers = {
        "lora_a": "lora_A begins at random. If both were zero, would a gradient reach either?",
        "alpha": "alpha only scales the product. What is it that is scaled?",
        "rank": "The rank says how thin the matrices are. What stands in them at the begin?",
        "both": "If both were zero, would a gradient reach either of them?",
    }
    said = mine.strip().lower().removesuffix(".weight") if isinstance(mine, str) else mine
    said = {"a": "lora_a", "b": "lora_b", "r": "rank"}.get(said, said)
    if said == "lora_b":
        return Verdict(True, "It begins at zero, so the product is zero, and lora_A can be random.")
    ask = "The name of a part of LoRA is asked for, such as lora_A. Which one begins at zero?"
    return Verdict(False, answers.get(said, ask))


@exercise(
    hints=(
        "Which methods reach the voice at their best rate? The panel says that rate.",
        "Set the size to the recorded one: which of these methods has the fewest numbers?",
        "VeRA of size 256 at a rate of 0.1.",
    ),
    solution="""
from ftcourse.widgets.adapters import adapters_panel

mine = adapters_panel(method="VeRA")
mine.controls["rate"].value = 0.1
""",
)
def few_bytes(mine: Any) -> Verdict:
    """Judge a panel: a recorded voice of 90 % with under 20 MiB to train it in Llama 2 7B."""
    from ftcourse.widgets.adapters import SIZES, recorded_voice, training_bytes  # slow: widgets

    if not hasattr(mine, "controls"):
        return Verdict(False, "The panel itself is asked for: check.few_bytes(panel).")
    chosen = {name: control.value for name, control in mine.controls.items()}
    if chosen["model"] != "llama-2-7b":
        return Verdict(False, f"The model is {chosen['model']}. Is it also so with llama-2-7b?")
    voice, mib = recorded_voice(**chosen), training_bytes(**chosen) / 2**20
    method = f"{chosen['method']} at {chosen['rate']:g}"
    if SIZES[chosen["method"]] not in (0, chosen["size"]):
        return Verdict(False, "No run was recorded at this size. Which size does the panel name?")
    if voice is None:
        return Verdict(False, f"There is no run of {method}. At which rates does it have dots?")
    if voice < 0.9:
        return Verdict(False, f"The recorded voice is {voice:.0%}. Is it the rate, or the method?")
    if mib >= 20:
        return Verdict(False, f"It takes {mib:.0f} MiB. Which methods train fewer numbers?")
    return Verdict(True, f"{method}: a recorded voice of {voice:.0%}, {mib:.0f} MiB to train.")


@exercise(
    hints=(
        "How many bottlenecks has a layer, and how many layers are there?",
        "One bottleneck: two matrices of 4096 * 64, and a bias for each output of both.",
        "32 * 2 * (2 * 4096 * 64 + 64 + 4096)",
    ),
    solution="mine = 32 * 2 * (2 * 4096 * 64 + 64 + 4096)",
)
def bottleneck_numbers(mine: Any) -> Verdict:
    """Judge the numbers that bottlenecks of width 64 train in Llama 2 7B."""
    matrices, biases = 2 * HIDDEN * SIZE, SIZE + HIDDEN
    one, wide = matrices + biases, 2 * INNER * SIZE + SIZE + INNER
    bugs = {
        LAYERS * one: "Is there one bottleneck in a layer? Behind which modules do they stand?",
        2 * one: "That is one layer. How many has the model?",
        one: "That is one bottleneck. How many are there?",
        LAYERS * 2 * matrices: "Which numbers of a linear layer are not in its matrix?",
        LAYERS * 2 * (matrices + HIDDEN): "One bias is there. Has down one, too?",
        LAYERS * 2 * (matrices + SIZE): "One bias is there. Has up one, too?",
        LAYERS * 2 * (HIDDEN * SIZE + biases): "down is one matrix. Which one leads back?",
        LAYERS * (one + wide): "How wide is what the MLP gives: hidden_size, or intermediate_size?",
    }
    praise = "Two of them in each of 32 layers. That is half a percent of the model."
    return judge_number(mine, LAYERS * 2 * one, bugs, praise, within=EXACT)


@exercise(
    hints=(
        "Three steps: down, the relu, up. What is added at the end?",
        "A row of y is a token: y @ down.T has a row for each token, as wide as the bottleneck.",
        "narrow = torch.relu(y @ down.T + down_bias); return y + narrow @ up.T + up_bias",
    ),
    solution="""
def bottleneck(y, down, down_bias, up, up_bias):
    narrow = torch.relu(y @ down.T + down_bias)
    return y + narrow @ up.T + up_bias

mine = bottleneck
""",
)
def bottleneck(mine: Any) -> Verdict | None:
    """Judge a function that returns what a bottleneck makes of a layer's output."""
    bugs = {
        "What becomes of y itself? With up at zero, the model should be as it was.": _way(keep=0),
        "Where is the relu? Without one, two matrices are only one thin matrix.": _way(relu=""),
        "Where does the relu stand: in the narrow middle, or behind up?": _way(relu="up"),
        "A linear layer also adds a bias. Where are both?": _way(biases=(0, 0)),
        "Is down_bias in the narrow middle, before the relu?": _way(biases=(0, 1)),
        "Is up_bias added at the end?": _way(biases=(1, 0)),
        "Is the detour added to y, or does it multiply it?": _way(times=True),
    }
    stops = "A matrix has shape (outputs, inputs), as in nn.Linear. Which one is transposed?"
    praise = "Equal on four cases, also where the bottleneck is wider than its input."
    return judge_function(mine, _detours, _way(), bugs, praise, stops)


def _way(keep: int = 1, relu: str = "narrow", biases=(1, 1), times: bool = False) -> Callable:
    """Return a bottleneck's forward pass, or one with a mistake in it."""

    def cut(place: str, x: "Tensor") -> "Tensor":
        return x.relu() if place == relu else x

    def forward(y: "Tensor", down: "Tensor", down_bias: "Tensor", up: "Tensor", up_bias: "Tensor"):
        narrow = cut("narrow", y @ down.T + biases[0] * down_bias)
        added = cut("up", narrow @ up.T + biases[1] * up_bias)
        return y * added if times else keep * y + added

    return forward


def _detours() -> list[tuple["Tensor", ...]]:
    """Return y, shape (tokens, features), with both matrices and biases of a bottleneck."""
    import torch

    draw = torch.Generator().manual_seed(3)
    return [
        tuple(torch.randn(s, generator=draw) for s in ((t, f), (n, f), (n,), (f, n), (f,)))
        for t, f, n in ((2, 3, 2), (1, 4, 1), (2, 2, 3), (3, 2, 1))
    ]


@exercise(
    hints=(
        "Multiply out (x * factors) @ weight.T for one output: which weights meet which factor?",
        "Factor j belongs to input j, and input j is a column of the weight.",
        "weight * factors: torch lays a vector along the columns.",
    ),
    solution="mine = lambda weight, factors: weight * factors",
)
def merge_factors(mine: Any) -> Verdict | None:
    """Judge a function that folds IA3's factors of a layer's inputs into its weight."""
    bugs = {
        "Are factors added, or do they multiply?": lambda w, f: w + f,
        "What do factors of 1 give? They should change nothing.": lambda w, f: w + w * f,
        "Do you divide? A factor of 2 should double a column.": lambda w, f: w / f,
        "That is the weight as it was. Where are the factors?": lambda w, f: w,
    }
    praise = "The merged layer is an ordinary one: it costs nothing more to run."
    stops = "There is a factor for each input. Is an input a row or a column of the weight?"
    return judge_function(mine, _weights, lambda w, f: w * f, bugs, praise, stops)


def _weights() -> list[tuple["Tensor", "Tensor"]]:
    """Return weights, shape (outputs, inputs), with a factor for each input."""
    import torch

    draw = torch.Generator().manual_seed(4)
    sides = ((2, 3), (3, 2), (2, 2))
    return [(torch.randn(s, generator=draw), torch.rand(s[1], generator=draw)) for s in sides]


@exercise(
    hints=(
        "AdamW divides a gradient by its usual size. So how far does one step move a number?",
        "By about the rate of that step. Which rates do the 80 steps have? Add them up.",
        "The rate rises for 4 steps and falls in a line to zero: on average it is half of 0.015.",
    ),
    solution="mine = 80 * 0.015 / 2",
)
def reach(mine: Any) -> Verdict:
    """Judge how far 80 steps with a highest rate of 0.015 can move a number, about."""
    bugs = {
        1.2: "Is the rate the same in all steps? What does the schedule do with it?",
        0.3: "Have you halved twice? Which rate does an average step have?",
        0.015: "That is one step. How many are there?",
        0.0075: "That is an average step. How many are there?",
        1.6: "That is where a factor may end. How far is it from where it began?",
        0.4: "That is the lowest that a factor ends. How far is it from 1?",
        8: "Which rate is asked about: IA3's best one, or LoRA's?",
    }
    about = 0.6 if isinstance(mine, Real) and 0.55 <= mine <= 0.65 else mine
    if isinstance(mine, Real) and 0.45 <= mine < 0.55:
        return Verdict(False, "Near. How far do the four steps go in which the rate still rises?")
    return judge_number(about, 0.6, bugs, "A factor that begins at 1 ends between 0.4 and 1.6.")
