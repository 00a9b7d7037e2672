"""The bytes that come and go in a step: what a layer keeps for its backward pass, and the logits.

Each term is a tensor that autograd saves in transformers' Llama code; ``measure_memory`` shows them
alive. Sizes are bytes for one token where a docstring says so, else for the whole batch.
"""

from ftcourse.attention import (
    attention_activations,
    score_bytes,
    scores_width,
    widest_score,
    writes_scores,
)
from ftcourse.config import LOSS_CHUNK
from ftcourse.norms import layer_norms, norm
from ftcourse.parameters import adapter_sizes, linear_parameters
from ftcourse.step import BYTES, Step


def layer_activations(step: Step) -> int:
    """Return the bytes for a token that one layer keeps from its forward to its backward pass."""
    return _attention_half(step) + _mlp_half(step)


def _attention_half(step: Step) -> int:
    kept = _inputs(step, step.shape.family.attention) + attention_activations(step) + _dropped(step)
    return layer_norms(step) // 2 + kept


def _mlp_half(step: Step) -> int:
    kept = _inputs(step, step.shape.family.mlp) + _dropped(step) + _routed(step)
    return layer_norms(step) - layer_norms(step) // 2 + kept + _middles_kept(step) * middle(step)


def _middles_kept(step: Step) -> int:
    """Return how many tensors of the intermediate size the MLP keeps, but for its last input.

    Gated: both halves and the function of one. Else what the function keeps: its input, and for
    ``gelu_new``, which is written in Python, also half of it, the tanh, and one plus the tanh.
    """
    if step.shape.family.gated:
        return 3
    if step.shape.hidden_act != "gelu_new":
        return 1
    in_fp32 = step.widens and step.linear_width == 2  # all but the half, after the power
    return 7 if in_fp32 else 4


def middle(step: Step) -> int:
    """Return the bytes for a token of one tensor of the intermediate size.

    A mixture has one for each of the token's experts, in the format of their weights.
    """
    shape = step.shape
    if shape.num_experts:
        return shape.num_experts_per_tok * shape.widths["expert"] * step.stream
    return shape.intermediate_size * step.linear_width


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


def _dropped(step: Step) -> int:
    """Return what attention or the MLP keeps of the dropout of its output."""
    return _mask(step) * (step.shape.hidden_dropout > 0)


def _mask(step: Step) -> int:
    """Return the bytes for a token of a dropout's mask: a number's on the CPU, a byte on a GPU."""
    return step.shape.hidden_size * (1 if step.card.device == "cuda" else step.stream)


def _inputs(step: Step, modules: dict[str, str]) -> int:
    """Return the inputs that linear modules keep, because a trained weight's gradient needs them.

    A frozen module keeps nothing. Modules with the same input share it, unless each copies it.
    """
    linears, family = step.shape.linears, step.shape.family
    chosen = [name for name in modules if step.full or name in step.adapted]
    if step.copies_inputs:
        inputs = sum(linears[name][0] for name in chosen)
    else:
        cast = family.norm == "layer" and step.widens  # each module casts the norm's result back
        words = {name: modules[name].split()[0] for name in chosen}
        sources = {
            name if cast and word == "hidden" else word: linears[name][0]
            for name, word in words.items()
        }
        if not family.partial_rotary:  # attention itself keeps its output
            sources.pop("queries", None)
        if family.norms == "shared" and modules is family.mlp:  # attention keeps it, too
            sources.pop("hidden", None)
        inputs = sum(sources.values())
    inner = 0 if step.full else step.config.rank * len(chosen)  # the output of each A
    return (inputs + inner) * (step.width if step.full else step.adapter_width)


def _widest_mlp(step: Step) -> int:
    """Return the bytes for a token that the MLP adds, at the start of its backward pass.

    It begins with gradients of the intermediate size, beside the hidden state's gradient; the last
    module's input, if it was kept, is free by then, and so are the norm and the dropout after the
    MLP, if there are any. That norm's own backward pass can be wider. Where adapters copy 16-bit
    inputs, the end of the forward pass is: the last input and its copy in fp32, beside some hidden
    states.
    """
    shape, hidden = step.shape, step.shape.hidden_size * step.stream
    trained = step.full or list(shape.linears)[-1] in step.adapted
    kept = shape.intermediate_size * (step.width if step.full else step.adapter_width) * trained
    wide = _middles_wide(step) * middle(step) - kept + hidden - _dropped(step)
    if shape.family.norms in ("after", "around"):
        wide = max(wide - norm(step), hidden + (5 - step.full) * 4 * shape.hidden_size)
    if "gate_up_proj" in step.adapted:
        wide += hidden  # the widest is the forward pass: three such, from weight and adapter
    if step.copies_inputs and not step.keeps_fp32:
        copies = shape.intermediate_size * (step.width + 4)
        wide = max(wide, copies + shape.family.live_hidden * hidden)
    return wide


def _middles_wide(step: Step) -> int:
    """Return how many tensors of the intermediate size the MLP's backward pass adds at once.

    Three: a gate's gradient and its two factors' gradients; or the input's gradient from the
    weight, from the adapter, and their sum. Two where the function is one operation, else.
    """
    adapted = list(step.shape.linears)[-1] in step.adapted
    return 3 if adapted or _middles_kept(step) > 1 else 2


def _widest_experts(step: Step) -> int:
    """Return the bytes for a token that a mixture adds in its backward pass.

    As in an MLP, when the experts' outputs are free; before that, three times their gradient; or at
    the end of the forward pass, beside their gradient, their weighted outputs and some inputs.
    """
    shape, hidden = step.shape, step.shape.hidden_size * step.stream
    outputs = shape.num_experts_per_tok * shape.hidden_size
    weighted = outputs * (4 if shape.family.routes_in_fp32 else step.stream)
    outputs *= step.stream
    inside, before = (3 - step.full) * middle(step) - outputs, 3 * weighted
    forward = 0 if step.full else hidden * (1 + (step.stream != 4)) + outputs + 2 * weighted
    return hidden + max(inside, before, forward)


def widest(step: Step) -> tuple[int, int]:
    """Return what a layer's backward pass adds at its widest: activations, dequantized weights.

    Attention that writes its scores needs gradients of them, when the MLP's half of the
    layer and the values are free again.
    """
    hidden = step.shape.hidden_size * step.stream
    wide = _widest_experts(step) if step.shape.num_experts else _widest_mlp(step)
    if writes_scores(step):
        heads, length = step.shape.num_attention_heads, step.config.max_length
        scores = heads * (
            length * (widest_score(step) - score_bytes(step))
            - step.shape.head_dim * scores_width(step)
        )
        wide = max(wide, scores + hidden - _mlp_half(step))
    if step.config.method != "qlora" or step.config.bits == 8:
        return step.tokens * wide, 0
    largest = step.width * max(i * o for i, o in step.shape.linears.values())
    return step.tokens * wide, max(0, largest - 2 * step.tokens * middle(step))  # gone by then


def logits_bytes(step: Step) -> int:
    """Return the bytes of the logits hump at the start of the backward pass.

    Three fp32 tensors of one number for each token and word: the log-probabilities, the loss's
    gradient with regard to them, and its gradient with regard to the logits. Autocast keeps a
    16-bit copy of an fp32 head; a loop that holds the model's output holds the logits too.
    """
    chunked = step.config.loss == "chunked"
    tokens = min(LOSS_CHUNK, step.tokens) if chunked else step.tokens
    copied = step.keeps_fp32 and step.autocast
    head = 2 * step.shape.vocab_size * step.shape.hidden_size if copied else 0
    held = step.attention_width * step.holds_logits * (not chunked)
    held += step.attention_width * (step.shape.final_logit_softcapping > 0)  # the tanh
    return (3 * 4 + held) * tokens * step.shape.vocab_size + head


def standing(step: Step) -> int:
    """Return what stands through the passes: the rotary table, and a mask that layers share."""
    config, shape = step.config, step.shape
    rotary = 0 if shape.learned_positions else 2 * config.max_length * shape.head_dim * step.stream
    embedded = (
        _mask(step) * (shape.embedding_dropout > 0) * (step.full or config.gradient_checkpointing)
    )
    changed = shape.embedding_dropout > 0 or shape.family.scaled
    if config.gradient_checkpointing and not step.full and changed:
        embedded += shape.hidden_size * step.stream
    masked = config.attention == "eager" and config.gradient_checkpointing
    masks = step.shape.family.masks * config.max_length * step.stream * masked
    return rotary + step.tokens * (embedded + masks)


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
