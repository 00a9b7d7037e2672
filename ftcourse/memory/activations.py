"""The bytes that come and go in a step: what a layer keeps for its backward pass, and the logits.

Each term is a tensor that autograd saves in transformers' Llama code; ``measure_memory`` shows them
alive. Sizes are bytes for one token where a docstring says so, else for the whole batch.
"""

from ftcourse.config import LOSS_CHUNK
from ftcourse.memory.attention import attention_activations, takes_mask
from ftcourse.memory.inputs import kept_inputs, middle
from ftcourse.memory.norms import layer_norms
from ftcourse.memory.parameters import adapter_sizes
from ftcourse.memory.step import BYTES, Step
from ftcourse.shape.parameters import linear_parameters


def layer_activations(step: Step) -> int:
    """Return the bytes for a token that one layer keeps from its forward to its backward pass."""
    return _attention_half(step) + mlp_half(step)


def _attention_half(step: Step) -> int:
    kept = (
        kept_inputs(step, step.shape.family.attention) + attention_activations(step) + dropped(step)
    )
    return layer_norms(step) // 2 + kept


def mlp_half(step: Step) -> int:
    """Return the bytes for a token that the MLP keeps, and the norms of its half."""
    kept = kept_inputs(step, step.shape.family.mlp) + dropped(step) + _routed(step)
    return layer_norms(step) - layer_norms(step) // 2 + kept + middles_kept(step) * middle(step)


def middles_kept(step: Step) -> int:
    """Return how many tensors of the intermediate size the MLP keeps, but for its last input.

    Gated: both halves and the function of one. Else what the function keeps: its input, and for
    ``gelu_new``, which is written in Python, also half of it, the tanh, and one plus the tanh.
    """
    if step.shape.family.gated:
        return 3
    if step.shape.hidden_act != "gelu_new":
        return 1
    return 7 if widened(step) else 4  # all but the half, after the power


def widened(step: Step) -> bool:
    """Whether autocast takes the MLP's function to fp32, because there is a power in it."""
    written_out = step.shape.hidden_act == "gelu_new" and not step.shape.family.gated
    return written_out and step.widens and step.linear_width == 2


def _routed(step: Step) -> int:
    """Return what a mixture keeps beside the intermediate tensors of each token's experts.

    These are the experts' outputs, for the gradient of the router's weights; the probabilities of
    all experts in fp32; for each of the token's own four numbers of int64, two of fp32; and their
    sum. Where experts are trained, also their inputs and the router's.
    """
    shape, count = step.shape, step.shape.num_experts_per_tok
    if not shape.num_experts:
        return 0
    hidden = shape.hidden_size * step.stream
    inputs = (count * hidden + middle(step) + hidden) * step.full
    return count * hidden + 4 * shape.num_experts + count * (4 * 8 + 2 * 4) + 4 + inputs


def dropped(step: Step) -> int:
    """Return what attention or the MLP keeps of the dropout of its output."""
    return _mask(step) * (step.shape.hidden_dropout > 0)


def _mask(step: Step) -> int:
    """Return the bytes for a token of a dropout's mask: a number's on the CPU, a byte on a GPU."""
    return step.shape.hidden_size * (1 if step.card.device == "cuda" else step.stream)


def logits_bytes(step: Step) -> int:
    """Return the bytes of the logits hump at the start of the backward pass.

    Three fp32 tensors of one number for each token and word: the log-probabilities, the loss's
    gradient with regard to them, and its gradient with regard to the logits. Autocast keeps a
    16-bit copy of an fp32 head.
    """
    chunked = step.config.loss == "chunked"
    tokens = min(LOSS_CHUNK, step.tokens) if chunked else step.tokens
    copied = step.keeps_fp32 and step.autocast
    head = 2 * step.shape.vocab_size * step.shape.hidden_size if copied else 0
    capped = step.attention_width * (step.shape.final_logit_softcapping > 0)  # the tanh
    return (3 * 4 + capped) * tokens * step.shape.vocab_size + head


def standing(step: Step) -> int:
    """Return what stands through the passes: the rotary table, and a mask that layers share.

    A loop that holds the model's output holds the logits too.
    """
    config, shape = step.config, step.shape
    rotary = 0 if shape.learned_positions else 2 * config.max_length * shape.head_dim * step.stream
    embedded = (
        _mask(step) * (shape.embedding_dropout > 0) * (step.full or config.gradient_checkpointing)
    )
    changed = shape.embedding_dropout > 0 or shape.family.scaled
    if config.gradient_checkpointing and not step.full and changed:
        embedded += shape.hidden_size * step.stream
    masked = config.attention == "eager" and config.gradient_checkpointing
    masks = shape.family.masks * config.max_length * step.stream * masked
    window = config.max_length**2 * takes_mask(step) * config.gradient_checkpointing  # a byte each
    holds = step.holds_logits and config.loss == "full"
    held = shape.vocab_size * step.attention_width * holds
    return rotary + window + step.tokens * (embedded + masks + held)


def weight_copies(step: Step) -> int:
    """Return the bytes of one layer's trained fp32 weights in 16 bits, as autocast copies them.

    They live as long as the layer's activations: with checkpointing, only while the layer is
    computed again.
    """
    if not step.autocast:
        return 0
    if step.full:
        copied = linear_parameters(step.shape) if step.keeps_fp32 else 0
    else:
        narrow = BYTES[step.config.adapter_dtype] != step.width
        copied = sum(adapter_sizes(step)) if narrow else 0
    return step.width * copied // step.shape.num_hidden_layers
