"""Where the bytes of a training step go: the breakdown, and its prediction by arithmetic."""

from functools import partial

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import Card, detect
from ftcourse.memory.activations import (
    layer_activations,
    logits_bytes,
    standing,
    weight_copies,
)
from ftcourse.memory.breakdown import MemoryBreakdown
from ftcourse.memory.inputs import (
    dropout_masks,
    first_modules,
    int8_before_adapters,
    int8_inputs,
    int8_unshared,
)
from ftcourse.memory.norms import norm, normed_input, own_input
from ftcourse.memory.parameters import (
    gradient_bytes,
    optimizer_bytes,
    trained_sizes,
    weight_bytes,
)
from ftcourse.memory.step import Step
from ftcourse.memory.widest import widest
from ftcourse.shape import load_shape
from ftcourse.shape.parameters import layer_matrices


def predict_memory(config: FinetuneConfig, card: Card | None = None) -> MemoryBreakdown:
    """Return the bytes of a training step by arithmetic, at the moment that needs the most.

    Without a card, for the device that is there. Takes milliseconds and loads no model.
    """
    return predict_step(Step(config, load_shape(config.model), card or detect()))


def predict_step(step: Step) -> MemoryBreakdown:
    """Return the bytes of a step that may differ from the Trainer's, as a ``Step`` says it."""
    return max(step_moments(step), key=lambda moment: moment.allocated)


def step_moments(step: Step) -> list[MemoryBreakdown]:
    """Return the breakdown at each moment of a step that can hold the peak, in order of time."""
    layers, last, first, head = _waiting(step)
    wide, bare = widest(step)
    early, late, whole = _gradients(step)
    extra = standing(step)
    at = partial(_breakdown, step)
    return [
        at("the loss", early, layers + head + extra + logits_bytes(step)),
        at("the last layer's backward pass", early, last + wide + extra, bare),
        at("the first layer's backward pass", late, first + wide + extra, bare),
        at("the embedding's backward pass", whole, _tied_gradients(step)),
        at("the optimizer's step", whole, 0, _optimizer_scratch(step)),
    ]


def _waiting(step: Step) -> tuple[int, int, int, int]:
    """Return the activations that wait: all layers', at the last, at the first; and the head's.

    With checkpointing the layers' inputs wait, and one layer is computed again. A norm keeps its
    very input if that is fp32, and a copy of it in fp32 if it is not. What 8-bit modules keep waits
    in every layer, with or without checkpointing, until the end.
    """
    one = layer_activations(step) * step.tokens + weight_copies(step)
    hidden = step.tokens * step.shape.hidden_size
    head = step.tokens * norm(step) + hidden * step.stream * step.full  # the last norm, its output
    layers = step.shape.num_hidden_layers
    int8 = step.tokens * sum(int8_inputs(step).values()) * layers
    if not step.config.gradient_checkpointing:
        untrained = normed_input(step) + dropout_masks(step, first_modules(step))
        untrained += int8_before_adapters(step)
        first = 0 if step.full else step.tokens * untrained  # nothing below the first norm is
        every = (one + step.tokens * sum(int8_unshared(step).values())) * layers - first
        return every, every, one + int8 - int8 // layers, head
    inputs, own = hidden * step.stream, step.tokens * own_input(step)
    waiting = inputs * layers + int8
    return waiting, waiting + one - own, inputs + int8 + one - own, head


def _gradients(step: Step) -> tuple[int, int, int]:
    """Return the bytes of gradients at the loss, at the first layer's backward pass, and at last.

    The first layer's are still to come, but for its last module's; so is the embedding's.
    """
    whole, shape = gradient_bytes(step), step.shape
    if step.config.gradient_accumulation_steps > 1:
        return whole, whole, whole
    if not step.full:
        return 0, whole - whole // shape.num_hidden_layers, whole
    layer = sum(layer_matrices(shape)[:-1])
    words = 0 if shape.tie_word_embeddings else shape.vocab_size
    tables = (words + shape.learned_positions) * shape.hidden_size
    return 0, whole - (layer + tables) * step.trained_width, whole


def _breakdown(
    step: Step, moment: str, gradients: int, activations: int, overhead: int = 0
) -> MemoryBreakdown:
    batch = 3 * 8 * step.tokens  # token ids, labels, shifted labels: int64
    workspace = sum(cublas_workspaces(step.card))
    return MemoryBreakdown(
        weight_bytes(step),
        gradients,
        optimizer_bytes(step),
        activations,
        overhead + batch + workspace,
        source="predicted",
        moment=moment,
        device=step.card.name,
    )


def cublas_workspaces(card: Card) -> list[int]:
    """Return the scratch bytes of cuBLAS, which PyTorch chooses (``getChosenWorkspaceSize``).

    Each thread that multiplies has its own: the forward pass's and autograd's. Hopper's are larger.
    """
    if card.device == "cpu":
        return []
    return 2 * [32 * 2**20 if card.capability == (9, 0) else 8_519_680]


def _tied_gradients(step: Step) -> int:
    """Return what a tied embedding adds: as head and as input it gets a gradient, then their sum.

    The sum is the one that stays; it is counted with the gradients.
    """
    if not step.full or not step.shape.tie_word_embeddings:
        return 0
    return 2 * step.shape.vocab_size * step.shape.hidden_size * step.trained_width


def _optimizer_scratch(step: Step) -> int:
    """Return the bytes that the optimizer needs for a moment.

    On a GPU plain AdamW updates all parameters at once (foreach), which takes a copy of them; else
    one after another: two copies of the one at hand, beside one left of the one before, which in
    a layer may be as large. Adafactor makes them in fp32, and of 16-bit numbers two more: gradient
    and parameter. A fused kernel takes nothing.
    """
    optimizer, width = step.config.optimizer, step.trained_width
    if optimizer not in ("adamw_torch", "adafactor"):
        return 0
    if optimizer == "adamw_torch" and step.card.device == "cuda":
        return gradient_bytes(step)
    more = 2 * (optimizer == "adafactor" and width == 2)
    in_layers = layer_matrices(step.shape) if step.full else trained_sizes(step)
    largest = max((2 + more) * max(trained_sizes(step)), (3 + more) * max(in_layers))
    return largest * (4 if more else width)
