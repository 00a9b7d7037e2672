"""The exercises of lesson 02: an adapter's numbers, its forward pass, its beginning, its scale."""

from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_function, judge_number


@exercise(
    hints=(
        "The constant is shared by the weights of its block. How many bits of it has each?",
        "32 bits for 64 weights: that is 32 / 64 bits for each of them.",
        "Add that to the four bits of the weight's own code.",
    ),
    solution="mine = 4 + 32 / 64",
)
def bits_with_constant(mine: Any) -> Verdict:
    """Judge the bits of a 4-bit weight whose block of 64 has one constant of 32 bits."""
    bugs = {
        4: "Where is the constant of the block? Somebody has to store it.",
        36: "Does every weight have a constant of its own, or one for 64 of them?",
        0.5: "That is the constant's part. And the weight's own code?",
        4.25: "How many bits has this constant, 16 or 32?",
    }
    praise = "Half a bit more than the name of the format says."
    return judge_number(mine, 4.5, bugs, praise, "What is stored for a block of 64 weights?")


@exercise(
    hints=(
        "Which weight decides the scale of the whole block?",
        "The scale is 7.0 / 7 = 1. Divide each weight by it and round.",
        "0.3, -0.2 and 0.1 become 0; 7.0 becomes 7.",
    ),
    solution="mine = 3",
)
def lost_to_outlier(mine: Any) -> Verdict:
    """Judge how many of the weights 0.3, -0.2, 0.1 and 7.0 come back as zero at 4 bits."""
    bugs = {
        0: "Is there a scale for each weight, or one for the block? How large is it?",
        1: "How large is a step, 7.0 / 7? Which weights are smaller than half of it?",
        2: "Does the sign help a weight? Round -0.2 as well.",
        4: "Which weight does the scale fit well? What becomes of 7.0?",
    }
    praise = "One outlier, and its block has nothing left for the others."
    return judge_number(mine, 3, bugs, praise, "There are four weights. How many become 0?")


@exercise(
    hints=(
        "A has rank rows and a column for each input; B a row for each output, rank columns.",
        "So a module of this many inputs and outputs trains rank * (inputs + outputs) numbers.",
        "8 * ((4096 + 4096) + (4096 + 1024)) in each of the 32 layers.",
    ),
    solution="mine = 32 * 8 * ((4096 + 4096) + (4096 + 1024))",
)
def adapter_numbers(mine: Any) -> Verdict:
    """Judge how many numbers rank 8 trains beside q_proj and v_proj of Llama-3.1-8B."""
    layer, ask = 8 * (8192 + 5120), "How many rows and columns have A and B?"
    bugs = {
        layer: "That is one layer. How many layers has the model?",
        32 * 8 * 2 * 8192: "Has v_proj as many outputs as inputs here? Print its two sides.",
        32 * 8 * 8192: "Is that A alone, or q_proj alone? Both modules have A and B.",
        32 * 8 * (4096 * 4096 + 4096 * 1024): "Did you multiply the two sides? A and B are thin.",
        32 * (8192 + 5120): "That is rank 1. Which rank is asked for?",
        20_971_520: "Did you count all linear modules? Only two of each layer are asked for.",
    }
    praise = "3.4 million beside 8.03 billion: 0.04 %."
    return judge_number(mine, 32 * layer, bugs, praise, ask)


@exercise(
    hints=(
        "Two paths are added: x through W, and x through A and then B.",
        "A matrix of shape (outputs, inputs) is applied as x @ W.T; so are A and B.",
        "return x @ W.T + alpha / rank * (x @ A.T @ B.T), where rank is len(A).",
    ),
    solution="""
def lora_forward(x, W, A, B, alpha):
    rank = len(A)
    return x @ W.T + alpha / rank * (x @ A.T @ B.T)

mine = lora_forward
""",
)
def lora_forward(mine: Any) -> Verdict | None:
    """Judge a function that computes a linear module's outputs with LoRA beside it."""
    bugs = {
        "Where is the scaling, alpha divided by the rank?": _forward(lambda a, r: 1),
        "By what is alpha divided? A has as many rows as the rank.": _forward(lambda a, r: a),
        "Is that not the scaling of rsLoRA?": _forward(lambda a, r: a / r**0.5),
        "Is alpha the upper or the lower part of the fraction?": _forward(lambda a, r: r / a),
        "The rank is a side of A. Which one?": _forward(lambda a, r: a / 6),  # the inputs
        "Do you add the update, or take it away?": _forward(lambda a, r: -a / r),
        "Where is the frozen path, x through W?": _forward(frozen=lambda a, r: 0),
        "Is x multiplied by W, or by its transpose? A row of W is one output.": _forward(flip=True),
        "Which meets x first, A or B? One has a column for each input.": _forward(swap=True),
        "Does alpha scale the frozen path, too?": _forward(frozen=lambda a, r: a / r),
        "Is the rank always 8? It is a side of A.": _forward(lambda a, r: a / 8),
        "Is the rank always 2? It is a side of A.": _forward(lambda a, r: a / 2),
    }
    praise = "Equal to LoRALinear on four cases, with other ranks and scalings."
    stops = "Which sides fit together? x has a column for each input, and so has A."
    return judge_function(mine, _linears, _forward(), bugs, praise, stops)


def _forward(scale=lambda a, r: a / r, frozen=lambda a, r: 1, flip=False, swap=False):
    """Return the function that is asked for, or one with a mistake in it."""

    def forward(x, W, A, B, alpha):
        added = x @ B @ A if swap else x @ A.T @ B.T
        return frozen(alpha, len(A)) * (x @ (W if flip else W.T)) + scale(alpha, len(A)) * added

    return forward


def _linears() -> list[tuple]:
    """Return x, W, A, B and alpha; W is square, so that a wrong side has the right shape."""
    import torch  # here: it takes a second, and only two exercises need it

    draw = torch.Generator().manual_seed(0)
    cases = []
    for rows, rank, alpha in ((3, 2, 4.0), (1, 1, 3.0), (4, 3, 1.0), (2, 4, 10.0)):
        shapes = ((rows, 6), (6, 6), (rank, 6), (6, rank))
        cases.append((*(torch.randn(shape, generator=draw) for shape in shapes), alpha))
    return cases


@exercise(
    hints=(
        "The product B A must be zero, but not both of its factors. Why not both?",
        "A is drawn at random, shape (rank, inputs); B is zero, shape (outputs, rank).",
        "return torch.randn(rank, inputs) / inputs**0.5, torch.zeros(outputs, rank)",
    ),
    solution="""
def begin(outputs, inputs, rank):
    A = torch.randn(rank, inputs) / inputs**0.5
    return A, torch.zeros(outputs, rank)

mine = begin
""",
)
def begin_pair(mine: Any) -> Verdict | None:
    """Judge a function that makes A and B for the beginning of a training."""
    if not callable(mine):
        return Verdict(False, f"A function is asked for. Is yours {a_type(mine)}?")
    for outputs, inputs, rank in ((5, 7, 3), (4, 6, 2)):
        found = mine(outputs, inputs, rank)
        if found is None or found is ...:
            return None
        if ask := _ask_of_pair(found, (rank, inputs), (outputs, rank)):
            return Verdict(False, ask)
    return Verdict(True, "B A is zero, and the gradient of B is not: the first step moves B.")


def _ask_of_pair(found: Any, of_A: tuple[int, int], of_B: tuple[int, int]) -> str:
    """Return the question that A and B raise, or nothing."""
    import torch

    if len(found) != 2 or not all(isinstance(each, torch.Tensor) for each in found):
        return "Two tensors are asked for, A and B. What do you return?"
    A, B = found
    shapes = (tuple(A.shape), tuple(B.shape))
    if shapes == (of_B, of_A):
        return "Did you return B, A? A comes first, shape (rank, inputs)."
    if shapes != (of_A, of_B):
        return f"Yours have the shapes {shapes}, asked are {(of_A, of_B)}. Which sides differ?"
    if not all(each.is_floating_point() and bool(each.isfinite().all()) for each in found):
        return "Are all numbers finite, in a format with fractions? Training moves each a little."
    asks = {
        (True, True): "What does the model compute before the first step? Is B A zero?",
        (False, False): "If both are zero, which gradient do A and B get in the first step?",
        (False, True): "The model begins unchanged. In the paper, which one begins at zero?",
    }
    if ask := asks.get((bool((A != 0).any()), bool((B != 0).any()))):
        return ask
    alike = torch.linalg.matrix_rank(A.float()) < len(A)
    return "If rows of A are multiples of others, what is the rank of B A?" if alike else ""


@exercise(
    hints=(
        "Both multiply B A by one number. Write down the two numbers.",
        "rsLoRA: 8 / sqrt(16) = 2. Plain: alpha / 16.",
        "alpha / 16 = 2.",
    ),
    solution="mine = 16 * 8 / 16**0.5",
)
def same_scaling(mine: Any) -> Verdict:
    """Judge the alpha with which plain LoRA equals rsLoRA with alpha 8, both at rank 16."""
    bugs = {
        8: "8 / 16 is 0.5. Is that what rsLoRA multiplies by?",
        2: "That is the number that both multiply by. Which alpha gives it?",
        0.5: "That is plain LoRA's scaling at alpha 8. Which alpha is asked for?",
        4: "That is the root of the rank. What does rsLoRA do with it?",
        128: "Did you multiply alpha by the rank? Where is the root?",
    }
    praise = (
        "So alpha 16 is 2 at rank 8, and 0.25 at rank 64: there, equal steps move the model less."
    )
    return judge_number(mine, 32, bugs, praise, "Which scaling has rsLoRA? Which alpha gives it?")


@exercise(
    hints=(
        "Choose the task facts and move the rank up. What does the text say is recorded?",
        "Take alpha twice the rank, since that is what the sweep recorded for every rank.",
        "Go through the ranks one by one; the first whose mean is 0.5 or more is the answer.",
    ),
    solution="""
from ftcourse.widgets.lora import lora_panel

panel = lora_panel()
panel.controls["task"].value = "facts"
panel.controls["rank"].value = 4  # alpha follows
mine = panel
""",
)
def half_the_facts(mine: Any) -> Verdict:
    """Judge a panel that must show the smallest adapter with a mean of half the facts."""
    from ftcourse.widgets.lora import ALL, over_ranks, recorded

    if not hasattr(mine, "controls"):
        return Verdict(False, "The panel itself is asked for: check.half_the_facts(panel).")
    point = {name: mine.controls[name].value for name in ("task", "rank", "alpha", "targets")}
    found = recorded(**point)
    smallest = min(rank for rank, mean in over_ranks("facts").items() if mean.mean >= 0.5)
    asks = {
        "Which task is asked for? The panel shows the voice.": point["task"] != "facts",
        "Nobody measured this point. Which alpha goes with this rank?": found is None,
        f"Recorded: {found!r}. What would make room for more facts?": found and found.mean < 0.5,
        "Do all modules with a smaller rank need fewer numbers?": point["targets"] != ALL,
        "Half is reached. Does a smaller rank reach it, too?": point["rank"] > smallest,
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    return Verdict(not ask, ask or f"Recorded: {found!r}. No lower rank reaches half.")
