"""The bytes that come and go in a step: what a layer keeps for its backward pass, and the logits.

Sizes are bytes for one token unless a name says otherwise. Each term is a tensor that autograd
saves in transformers' Llama code; ``measure_memory`` shows them alive.
"""

from ftcourse.config import LOSS_CHUNK, FinetuneConfig, adapted_modules
from ftcourse.hardware import Card
from ftcourse.parameters import BYTES, adapter_sizes
from ftcourse.shape import ModelShape


def layer_activations(config: FinetuneConfig, shape: ModelShape, card: Card) -> int:
    """Return the bytes for a token that one layer keeps from its forward to its backward pass."""
    width = BYTES[config.dtype_on(card)]
    return (
        _norms(config, shape, width)
        + _inputs(config, shape, width, card)
        + _attention(config, shape, width)
        + 3 * shape.intermediate_size * width  # gate, up, silu(gate)
    )


def _norms(config: FinetuneConfig, shape: ModelShape, width: int) -> int:
    """Return what two RMS norms keep: their input in fp32, one factor; if trained, the quotient."""
    quotient = shape.hidden_size * width if config.method == "full" else 0
    return 2 * (4 * shape.hidden_size + 4 + quotient)


def _inputs(config: FinetuneConfig, shape: ModelShape, width: int, card: Card) -> int:
    """Return the inputs that linear modules keep, because a trained weight's gradient needs them.

    A frozen module keeps nothing. Modules with the same input share it, unless peft copies it.
    """
    if config.method == "full":
        return (2 * shape.hidden_size + shape.intermediate_size) * width
    chosen = adapted_modules(config, shape.linears)
    source = dict(zip(shape.linears, ("x", "x", "x", "attention", "y", "y", "middle"), strict=True))
    shared = {source[name]: shape.linears[name][0] for name in chosen}
    shared.pop("attention", None)  # kept by the attention itself
    copied = sum(shape.linears[name][0] for name in chosen)
    inputs = copied if adapter_copies_input(config, card) else sum(shared.values())
    return (inputs + config.rank * len(chosen)) * width  # and the output of each A


def adapter_copies_input(config: FinetuneConfig, card: Card) -> bool:
    """Whether each adapter makes its own copy of its input.

    peft casts the input to the adapter's format, and autocast casts it back. Its 4-bit layers skip
    the first cast under autocast, but only see the autocast of a GPU.
    """
    if config.method == "full" or config.adapter_dtype == config.dtype_on(card):
        return False
    return config.method == "lora" or card.device == "cpu"


def _attention(config: FinetuneConfig, shape: ModelShape, width: int) -> int:
    """Return what attention keeps: queries, keys, values, its output, and row sums or scores."""
    heads = shape.num_attention_heads
    queries, keys = heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    normalized = (queries + keys) * 4 if shape.qk_norm else 0
    if config.attention == "eager":  # keys and values repeated; softmax in fp32, and cast back
        scores = 4 if width == 4 else 4 + width
        return 4 * queries * width + heads * config.max_length * scores + normalized
    return (2 * queries + 2 * keys) * width + 4 * heads + normalized


def logits_bytes(config: FinetuneConfig, shape: ModelShape) -> int:
    """Return the bytes of the logits hump, for the whole batch, at the start of the backward pass.

    Three fp32 tensors of one number for each token and word: the log-probabilities, the loss's
    gradient with regard to them, and its gradient with regard to the logits.
    """
    tokens = config.batch_size * config.max_length
    if config.loss == "chunked":
        tokens = min(LOSS_CHUNK, tokens)
    return 3 * 4 * tokens * shape.vocab_size


def adapter_casts(config: FinetuneConfig, shape: ModelShape, card: Card) -> int:
    """Return the bytes of the adapter's copies in the format of the arithmetic (autocast)."""
    width = BYTES[config.dtype_on(card)]
    if config.method == "full" or BYTES[config.adapter_dtype] == width:
        return 0
    return sum(adapter_sizes(config, shape)) * width


def rotary_bytes(config: FinetuneConfig, shape: ModelShape, card: Card) -> int:
    """Return the bytes of the cosines and sines that turn queries and keys, once for all layers."""
    return 2 * config.max_length * shape.head_dim * BYTES[config.dtype_on(card)]
