"""What attention keeps for its backward pass, in bytes for one token."""

from ftcourse.memory.step import Step


def attention_activations(step: Step) -> int:
    """Return what attention keeps: queries, keys, values, its output, and row sums or scores.

    Eager attention repeats keys and values for each head. So does PyTorch's own with a mask, of
    which it keeps a copy, and before compute capability 8.0, where its flash kernel does not run,
    unless all heads share one. Where one module makes queries, keys and values, the values keep all
    of its output, unless they are cast; positions make the other two anew.
    """
    shape, capability = step.shape, step.card.capability
    heads, width = shape.num_attention_heads, scores_width(step)
    queries, keys = heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    if writes_scores(step):
        last, copied = list(shape.family.attention)[-1], shape.family.partial_rotary
        kept = (step.full or last in step.adapted) and not (step.copies_inputs or copied)
        scores = heads * step.config.max_length * score_bytes(step)
        output = queries * step.attention_width * kept
        return 3 * queries * width + output + scores + _head_norms(step)
    old, masked = capability and capability < (8, 0), takes_mask(step)
    if (old or masked) and shape.num_key_value_heads > 1:
        keys = queries
    anew = not shape.learned_positions and step.linear_width == width
    whole = (queries + keys) * (shape.family.fused and anew)
    mask = step.config.max_length * width * masked
    return (2 * queries + 2 * keys + whole) * width + 4 * heads + _head_norms(step) + mask


def writes_scores(step: Step) -> bool:
    """Whether attention writes all its scores to memory."""
    return step.config.attention == "eager" or _drops_on_cpu(step)


def takes_mask(step: Step) -> bool:
    """Whether PyTorch's own attention gets a mask, because tokens do not see all before them."""
    longer = 0 < step.shape.sliding_window < step.config.max_length
    return longer and step.config.attention == "sdpa"


def _drops_on_cpu(step: Step) -> bool:
    """Whether PyTorch's own attention drops scores on the CPU: written out, and all in fp32."""
    on_cpu = step.card.device == "cpu" and step.config.attention == "sdpa"
    return on_cpu and step.shape.attention_dropout > 0


def scores_width(step: Step) -> int:
    """Return the bytes of a number in attention, as it computes here."""
    return 4 if _drops_on_cpu(step) else step.attention_width


def _head_norms(step: Step) -> int:
    """Return what the norms of queries and keys keep: their inputs in fp32, and as ``norm``."""
    shape, widths = step.shape, step.shape.widths
    both = widths["queries"] + widths["keys"]
    if not shape.family.qk_norm:
        return 0
    factors = shape.num_attention_heads + shape.num_key_value_heads
    factors = factors if shape.family.qk_norm == "head" else 2
    quotient = 4 if shape.family.norm == "rms_fp32" else step.stream
    return 4 * both + 4 * factors + both * quotient * step.full


def score_bytes(step: Step) -> int:
    """Return the bytes of a score that attention keeps: softmax in fp32, and what follows.

    It is cast back where products have 16 bits; dropout keeps a mask and the rest; a cap its tanh.
    """
    width, drops = scores_width(step), step.shape.attention_dropout > 0
    factor = width if drops or width != 4 else 0
    return 4 + factor + _mask(step) + width * (step.shape.attn_logit_softcapping > 0)


def widest_score(step: Step) -> int:
    """Return the bytes of a score when the backward pass needs the most.

    That is when softmax goes backward: its result, the gradient of it and that of the scores, all
    in fp32, beside the cap's tanh; or, with dropout, the softmax, the mask, and the gradient on
    both sides of it.
    """
    width = scores_width(step)
    dropped = (4 + _mask(step) + 2 * width) * (step.shape.attention_dropout > 0)
    capped = width * (step.shape.attn_logit_softcapping > 0)
    return max(3 * 4 + _product(step) + capped, dropped)


def _product(step: Step) -> int:
    """Return what CUDA's softmax adds to a score: it first multiplies its result and gradient.

    It gives fp16 scores their gradient in fp16 at once (PyTorch's SoftMax.cu), so half of the
    product stands for both.
    """
    if step.card.device != "cuda":
        return 0
    half = step.attention_width == 2 and step.config.dtype_on(step.card) == "float16"
    return 2 if half else 4


def _mask(step: Step) -> int:
    """Return the bytes of a dropout's mask for a score: a byte on a GPU, a number on the CPU."""
    width = 1 if step.card.device == "cuda" else scores_width(step)
    return width * (step.shape.attention_dropout > 0)
