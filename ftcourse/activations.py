"""The bytes that come and go in a step: what a layer keeps for its backward pass, and the logits.

Each term is a tensor that autograd saves in transformers' Llama code; ``measure_memory`` shows them
alive. Sizes are bytes for one token where a docstring says so, else for the whole batch.
"""

from ftcourse.config import LOSS_CHUNK
from ftcourse.parameters import adapter_sizes, linear_parameters
from ftcourse.step import BYTES, Step


def layer_activations(step: Step) -> int:
    """Return the bytes for a token that one layer keeps from its forward to its backward pass."""
    return _attention_half(step) + _mlp_half(step)


def _attention_half(step: Step) -> int:
    kept = _inputs(step, step.shape.family.attention) + _attention(step) + _dropped(step)
    return _norms(step) // 2 + kept


def _mlp_half(step: Step) -> int:
    inputs = _inputs(step, step.shape.family.mlp) + _dropped(step)
    return _norms(step) - _norms(step) // 2 + inputs + _middles_kept(step) * middle(step)


def _middles_kept(step: Step) -> int:
    """Return how many tensors of the intermediate size the MLP keeps, but for its last input.

    Gated: both halves and the function of one. Else what the function keeps: its input, and for
    ``gelu_new``, which is written in Python, also half of it, the tanh, and one plus the tanh.
    """
    if step.shape.family.gated:
        return 3
    return 4 if step.shape.hidden_act == "gelu_new" else 1


def middle(step: Step) -> int:
    """Return the bytes for a token of one tensor of the intermediate size.

    bitsandbytes' 4-bit layers give their result in the format of their input.
    """
    width = step.stream if step.config.method == "qlora" else step.width
    return step.shape.intermediate_size * width


def norm(step: Step) -> int:
    """Return what a norm keeps for a token: its input; if trained, the quotient.

    RMSNorm works in fp32, and multiplies its weight in the hidden state's format or in fp32, too.
    LayerNorm is one operation, which keeps no quotient.
    """
    kind = step.shape.family.norm
    quotient = {"rms": step.stream, "rms_fp32": 4}.get(kind, 0) * step.full
    return step.shape.hidden_size * (_normed_width(step) + quotient)


def _normed_width(step: Step) -> int:
    """Return the bytes of a number of a norm's input as it is kept: cast to fp32, or as it is."""
    return step.stream if step.shape.family.norm == "layer" else 4


def _norms(step: Step) -> int:
    """Return what a layer's norms keep, with a factor for each token, or a mean and a factor.

    Two LayerNorms side by side keep their input once.
    """
    family = step.shape.family
    factors = {"layer": 2 * step.stream, "bare": 8}.get(family.norm, 4)
    same = step.shape.hidden_size * _normed_width(step) * (family.norms == "parallel")
    return family.norms_per_layer * (norm(step) + factors) - same


def normed_input(step: Step) -> int:
    """Return the bytes for a token that a layer's norm keeps of the layer's input."""
    after = step.shape.family.norms == "after"
    return 0 if after else step.shape.hidden_size * _normed_width(step)


def own_input(step: Step) -> int:
    """Return the bytes for a token of a layer's very input that the layer keeps: no copy of it."""
    hidden, family = step.shape.hidden_size * step.stream, step.shape.family
    if family.norms != "after":
        return hidden if normed_input(step) == hidden else 0
    makers = [name for name, words in family.attention.items() if words.startswith("hidden")]
    kept = step.full or set(makers) & set(step.adapted)
    return hidden if kept and not step.copies_inputs else 0


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
        sources = {modules[name].split()[0]: linears[name][0] for name in chosen}
        if not family.partial_rotary:  # attention itself keeps its output
            sources.pop("queries", None)
        if family.norms == "shared" and modules is family.mlp:  # attention keeps it, too
            sources.pop("hidden", None)
        inputs = sum(sources.values())
    inner = 0 if step.full else step.config.rank * len(chosen)  # the output of each A
    return (inputs + inner) * (step.width if step.full else step.adapter_width)


def _attention(step: Step) -> int:
    """Return what attention keeps: queries, keys, values, its output, and row sums or scores.

    Eager attention repeats keys and values for each head. So does PyTorch's own before compute
    capability 8.0, where its flash kernel does not run. Where one module makes queries, keys and
    values, the values keep all of its output, and positions make the other two anew.
    """
    shape, capability = step.shape, step.card.capability
    heads, width = shape.num_attention_heads, step.attention_width
    queries, keys = heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    if writes_scores(step):
        last, copied = list(shape.family.attention)[-1], shape.family.partial_rotary
        kept = (step.full or last in step.adapted) and not (step.copies_inputs or copied)
        scores = heads * step.config.max_length * _scores(step)
        return (3 + kept) * queries * width + scores + _head_norms(step)
    keys = queries if capability and capability < (8, 0) else keys
    whole = (queries + keys) * (shape.family.fused and not shape.learned_positions)
    return (2 * queries + 2 * keys + whole) * width + 4 * heads + _head_norms(step)


def writes_scores(step: Step) -> bool:
    """Whether attention writes all its scores to memory.

    PyTorch's own does so on the CPU, too, if it drops some of them.
    """
    drops = step.shape.attention_dropout > 0 and step.card.device == "cpu"
    return step.config.attention == "eager" or drops


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


def _scores(step: Step) -> int:
    """Return the bytes of a score that attention keeps: softmax in fp32, and what follows.

    It is cast back where products have 16 bits; dropout keeps a mask and the rest; a cap its tanh.
    """
    width, drops = step.attention_width, step.shape.attention_dropout > 0
    mask = (1 if step.card.device == "cuda" else width) * drops
    factor = width if drops or width != 4 else 0
    return 4 + factor + mask + width * (step.shape.attn_logit_softcapping > 0)


def _middles_wide(step: Step) -> int:
    """Return how many tensors of the intermediate size the MLP's backward pass adds at once.

    Three: a gate's gradient and its two factors' gradients; or the input's gradient from the
    weight, from the adapter, and their sum. Two where the function is one operation, else.
    """
    adapted = list(step.shape.linears)[-1] in step.adapted
    return 3 if adapted or _middles_kept(step) > 1 else 2


def widest(step: Step) -> tuple[int, int]:
    """Return what a layer's backward pass adds at its widest: activations, dequantized weights.

    It begins with the gradient of the intermediate size, three tensors at once, beside the hidden
    state's gradient; the last module's input, if it was kept, is free by then, and so is the norm
    after the MLP, if there is one. Where adapters copy 16-bit inputs, the end of the forward pass
    is wider: the input and its copy in fp32, beside the residual, two norms' outputs, a quotient
    and the layer's own output. Eager attention needs two gradients of the scores in fp32, when the
    MLP's half of the layer and the values are free again.
    """
    hidden, size = step.shape.hidden_size * step.stream, step.shape.intermediate_size
    width = step.width if step.full else step.adapter_width
    last = list(step.shape.linears)[-1]
    kept = size * width if step.full or last in step.adapted else 0
    wide = _middles_wide(step) * middle(step) - kept + hidden - _dropped(step)
    if step.shape.family.norms in ("after", "around"):
        wide = max(wide - norm(step), hidden + (5 - step.full) * 4 * step.shape.hidden_size)
    if "gate_up_proj" in step.adapted:
        wide += hidden
    if step.copies_inputs and not step.keeps_fp32:
        wide = max(wide, size * (step.width + 4) + 5 * hidden)
    if writes_scores(step):
        heads, length = step.shape.num_attention_heads, step.config.max_length
        scores = heads * (
            length * (12 - _scores(step)) - step.shape.head_dim * step.attention_width
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
    dropped = 0
    if shape.embedding_dropout and (step.full or config.gradient_checkpointing):
        dropped = _mask(step) + (0 if step.full else shape.hidden_size * step.stream)
    masked = config.attention == "eager" and config.gradient_checkpointing
    masks = step.shape.family.masks * config.max_length * step.stream * masked
    return rotary + step.tokens * (dropped + masks)


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
