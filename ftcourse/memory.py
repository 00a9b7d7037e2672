"""Where the bytes of a training step go: the breakdown, and its prediction by arithmetic."""

from dataclasses import dataclass, field
from functools import partial

from ftcourse.activations import (
    adapter_casts,
    adapter_copies_input,
    layer_activations,
    logits_bytes,
    rotary_bytes,
)
from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.hardware import GIB, Card, detect
from ftcourse.parameters import (
    BYTES,
    linear_parameters,
    optimizer_bytes,
    trained_sizes,
    trained_width,
    weight_bytes,
)
from ftcourse.shape import ModelShape, load_shape

PARTS = ("weights", "gradients", "optimizer", "activations", "overhead")


@dataclass(frozen=True)
class MemoryBreakdown:
    """The bytes of a training step at its peak, in five parts that add up to ``allocated``.

    One noun for three verbs: a prediction, a simulation and a measurement all return it.
    """

    weights: int
    """Base model and adapter, with the constants of quantized weights."""
    gradients: int
    """Gradients of the trained parameters."""
    optimizer: int
    """States that the optimizer keeps from step to step."""
    activations: int
    """Everything that the forward and the backward pass compute and still hold."""
    overhead: int
    """Buffers, the batch, weights dequantized for a moment, workspaces, rounding."""
    source: str
    """``predicted``, ``simulated``, ``measured`` or ``recorded``."""
    moment: str = ""
    """The moment of the step that holds the peak."""
    reserved: int | None = None
    """Bytes that the caching allocator took from the card; None where not known."""
    process: int | None = None
    """Reserved bytes and the CUDA context: what nvidia-smi shows; None where not known."""
    device: str = ""
    """The card, or the CPU."""
    date: str = ""
    """Day of a measurement, as YYYY-MM-DD."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library versions of a measurement."""

    @property
    def parts(self) -> dict[str, int]:
        """The five parts in bytes, always in the same order."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def allocated(self) -> int:
        """Live bytes at the peak: ``torch.cuda.max_memory_allocated``, the sum of the parts."""
        return sum(self.parts.values())

    @property
    def largest(self) -> str:
        """The name of the largest part."""
        return max(PARTS, key=self.parts.__getitem__)

    def __repr__(self) -> str:
        """Return the report: the five parts and their sum, and where they come from."""
        head = " ".join(filter(None, [self.source, self.device and f"on {self.device}", self.date]))
        if self.source == "measured" and self.device == "CPU":
            head += " (live bytes of every tensor of a real step, counted one by one)"
        lines = [f"{name:<12}{show_bytes(size):>12}" for name, size in self.parts.items()]
        total = f"{'allocated':<12}{show_bytes(self.allocated):>12}"
        peak = [f"peak at {self.moment}"] if self.moment else []
        return "\n".join([head, *lines, total, *peak])


def show_bytes(count: float) -> str:
    """Return a number of bytes as text, in GiB (2**30 bytes) or, below one, in MiB (2**20).

    >>> show_bytes(3 * 2**29)
    '1.50 GiB'
    """
    return f"{count / GIB:.2f} GiB" if abs(count) >= GIB else f"{count / 2**20:.2f} MiB"


def predict_memory(config: FinetuneConfig, card: Card | None = None) -> MemoryBreakdown:
    """Return the bytes of a training step by arithmetic, at the moment that needs the most.

    Without a card, for the device that is there. Takes milliseconds and loads no model.
    """
    card = card or detect()
    shape = load_shape(config.model)
    return max(step_moments(config, shape, card), key=lambda moment: moment.allocated)


def step_moments(config: FinetuneConfig, shape: ModelShape, card: Card) -> list[MemoryBreakdown]:
    """Return the breakdown at each moment of a step that can hold the peak, in order of time."""
    layers, last, first, head = _waiting(config, shape, card)
    wide, bare = _widest(config, shape, card)
    early, late, whole = _gradients(config, shape, card)
    extra = adapter_casts(config, shape, card) + rotary_bytes(config, shape, card)
    at = partial(_breakdown, config, shape, card)
    return [
        at("the loss", early, layers + head + extra + logits_bytes(config, shape)),
        at("the last layer's backward pass", early, last + wide + extra, bare),
        at("the first layer's backward pass", late, first + wide + extra, bare),
        at("the embedding's backward pass", whole, _tied_gradients(config, shape, card)),
        at("the optimizer's step", whole, 0, _optimizer_scratch(config, shape, card)),
    ]


def _waiting(config: FinetuneConfig, shape: ModelShape, card: Card) -> tuple[int, int, int, int]:
    """Return the activations that wait: all layers', at the last, at the first; and the head's.

    With checkpointing the layers' inputs wait, and one layer is computed again. In fp32 that
    layer's norm keeps its very input; in 16 bits it keeps a copy in fp32.
    """
    tokens, width = config.batch_size * config.max_length, BYTES[config.dtype_on(card)]
    one, hidden = layer_activations(config, shape, card) * tokens, tokens * shape.hidden_size
    full = config.method == "full"
    head = hidden * (4 + 2 * width * full)  # the last norm: its input in fp32, quotient, output
    if not config.gradient_checkpointing:
        embedding = 0 if full else 4 * hidden  # its norm keeps nothing if nothing below is trained
        every = one * shape.num_hidden_layers - embedding
        return every, every, one, head
    inputs = hidden * width * shape.num_hidden_layers
    shared = hidden * width if width == 4 else 0
    return inputs, inputs + one - shared, hidden * width + one - shared, head


def _widest(config: FinetuneConfig, shape: ModelShape, card: Card) -> tuple[int, int]:
    """Return what a layer's backward pass adds at its widest: activations, dequantized weights.

    It begins with the gradient of the intermediate size, three tensors at once, beside the hidden
    state's gradient; if down_proj is trained or adapted, its input is free by then. Where adapters
    copy their inputs, the end of the forward pass is wider: the input and its copy in fp32, beside
    the residual, two norms' outputs and the layer's own.
    """
    tokens, width = config.batch_size * config.max_length, BYTES[config.dtype_on(card)]
    hidden, middle = shape.hidden_size * width, shape.intermediate_size
    freed = config.method == "full" or "down_proj" in adapted_modules(config, shape.linears)
    wide = tokens * ((3 - freed) * middle * width + hidden)
    if adapter_copies_input(config, card):
        wide = max(wide, tokens * (middle * (width + 4) + 4 * hidden))
    if config.method != "qlora" or config.bits == 8:
        return wide, 0
    largest = width * max(inputs * outputs for inputs, outputs in shape.linears.values())
    return wide, max(0, largest - 2 * tokens * middle * width)  # it is gone when that is widest


def _gradients(config: FinetuneConfig, shape: ModelShape, card: Card) -> tuple[int, int, int]:
    """Return the bytes of gradients at the loss, at the first layer's backward pass, and at last.

    The first layer's are still to come, but for its last module's; so is the embedding's.
    """
    whole = sum(trained_sizes(config, shape)) * trained_width(config, card)
    if config.gradient_accumulation_steps > 1:
        return whole, whole, whole
    if config.method != "full":
        return 0, whole - whole // shape.num_hidden_layers, whole
    inputs, outputs = shape.linears["down_proj"]
    layer = linear_parameters(shape) // shape.num_hidden_layers - inputs * outputs
    embedding = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    return 0, whole - (layer + embedding) * trained_width(config, card), whole


def _breakdown(
    config: FinetuneConfig,
    shape: ModelShape,
    card: Card,
    moment: str,
    gradients: int,
    activations: int,
    overhead: int = 0,
) -> MemoryBreakdown:
    batch = 3 * 8 * config.batch_size * config.max_length  # token ids, labels, mask: int64
    workspace = CUBLAS_WORKSPACE if card.device == "cuda" else 0
    return MemoryBreakdown(
        weight_bytes(config, shape, card),
        gradients,
        optimizer_bytes(config, shape, card),
        activations,
        overhead + batch + workspace,
        source="predicted",
        moment=moment,
        device=card.name,
    )


CUBLAS_WORKSPACE = 8_519_680
"""Bytes that cuBLAS takes for its scratch on a card before Hopper (torch, CUDAContext)."""


def _tied_gradients(config: FinetuneConfig, shape: ModelShape, card: Card) -> int:
    """Return what a tied embedding adds: as head and as input it gets a gradient, then their sum.

    The sum is the one that stays; it is counted with the gradients.
    """
    if config.method != "full" or not shape.tie_word_embeddings:
        return 0
    return 2 * shape.vocab_size * shape.hidden_size * trained_width(config, card)


def _optimizer_scratch(config: FinetuneConfig, shape: ModelShape, card: Card) -> int:
    """Return the bytes that the optimizer needs for a moment.

    On a GPU plain AdamW updates all parameters at once (foreach), which takes a copy of them; else
    one after another: two copies of the one at hand, beside one left of the one before. A fused
    kernel takes nothing.
    """
    if config.optimizer not in ("adamw_torch", "adafactor"):
        return 0
    sizes, width = trained_sizes(config, shape), trained_width(config, card)
    if config.optimizer == "adamw_torch" and card.device == "cuda":
        return sum(sizes) * width
    return width * max(2 * max(sizes), 3 * max(n for n in sizes if sizes.count(n) > 1))
