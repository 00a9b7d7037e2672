"""The widest moment of a layer's backward pass: what it adds to what the layer keeps."""

from ftcourse.memory.activations import dropped, middles_kept, mlp_half, widened
from ftcourse.memory.attention import (
    attention_activations,
    score_bytes,
    scores_width,
    widest_score,
    writes_scores,
)
from ftcourse.memory.inputs import kept_inputs, middle
from ftcourse.memory.norms import norm
from ftcourse.memory.step import BYTES, Step


def widest(step: Step) -> tuple[int, int]:
    """Return what a layer's backward pass adds at its widest: activations, dequantized weights.

    That is in the MLP, unless attention has scores or norms of queries to bring back when the MLP's
    half of the layer is free again. Not counted: heads that together are several times as wide as
    the MLP, which no known model has, and which take more without either.
    """
    hidden = step.shape.hidden_size * step.stream
    wide = _widest_experts(step) if step.shape.num_experts else _widest_mlp(step)
    if writes_scores(step):
        heads, length = step.shape.num_attention_heads, step.config.max_length
        scores = heads * (
            length * (widest_score(step) - score_bytes(step))
            - step.shape.head_dim * scores_width(step)
        )
        wide = max(wide, scores + hidden - mlp_half(step))
    if step.shape.family.qk_norm:
        wide = max(wide, _widest_head_norm(step) + 2 * hidden - mlp_half(step))
    if step.config.method != "qlora":
        return step.tokens * wide, 0
    width = step.stream if step.int8 else step.width
    largest = width * max(i * o for i, o in step.shape.linears.values())
    return step.tokens * wide, max(0, largest - 2 * step.tokens * middle(step))  # gone by then


def _widest_head_norm(step: Step) -> int:
    """Return the bytes for a token that attention adds when the queries' norm goes backward.

    The square and its gradients make five tensors in fp32, and of what attention kept, only that
    norm's input is left: keys and values, which come later, have gone backward before it.
    """
    queries, attention = step.shape.widths["queries"], step.shape.family.attention
    others = {name: words for name, words in attention.items() if name != "q_proj"}
    freed = attention_activations(step) - 4 * queries + kept_inputs(step, others)
    return 5 * 4 * queries - freed


def _widest_mlp(step: Step) -> int:
    """Return the bytes for a token that the MLP adds, at the start of its backward pass.

    It begins with gradients of the intermediate size, beside the hidden state's gradient; the last
    module's input, if it was kept, is free by then, and so are the norm and the dropout after the
    MLP, if there are any. That norm's own backward pass can be wider. Where adapters cast 16-bit
    inputs, the end of the forward pass is: the last input and its fp32 copies, beside some hidden
    states.
    """
    shape, hidden = step.shape, step.shape.hidden_size * step.stream
    trained = step.full or list(shape.linears)[-1] in step.adapted
    kept = shape.intermediate_size * (step.width if step.full else step.adapter_width) * trained
    wide = _middles_wide(step) * middle(step) - kept + hidden - dropped(step)
    if shape.family.norms in ("after", "around"):
        wide = max(wide - norm(step), hidden + (5 - step.full) * 4 * shape.hidden_size)
    if "gate_up_proj" in step.adapted:
        wide += hidden  # the widest is the forward pass: three such, from weight and adapter
    if step.casts_inputs and not step.keeps_fp32:
        copies = BYTES[step.config.adapter_dtype] * (1 + step.drops_inputs)
        inputs = shape.intermediate_size * (step.width + copies)
        wide = max(wide, inputs + shape.family.live_hidden * hidden)
    return wide


def _middles_wide(step: Step) -> int:
    """Return how many tensors of the intermediate size the MLP's backward pass adds at once.

    Three: a gate's gradient and its two factors' gradients; or the input's gradient from the
    weight, from the adapter, and their sum. Two where the function is one operation, else. A
    function that autocast widens has its gradients in fp32, each as long as two.
    """
    if widened(step):
        return 6
    adapted = list(step.shape.linears)[-1] in step.adapted
    return 3 if adapted or middles_kept(step) > 1 else 2


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
