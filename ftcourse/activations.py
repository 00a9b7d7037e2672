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
    return _norm(step) + _inputs(step, "q_proj", "k_proj", "v_proj", "o_proj") + _attention(step)


def _mlp_half(step: Step) -> int:
    inputs = _inputs(step, "gate_proj", "up_proj", "down_proj")
    return _norm(step) + inputs + 3 * middle(step)  # gate, up, silu(gate)


def middle(step: Step) -> int:
    """Return the bytes for a token of one tensor of the intermediate size.

    bitsandbytes' layers give their result in the format of their input, but on a CPU those of 8
    bits leave it to autocast.
    """
    autocast = step.config.method != "qlora" or (step.int8 and step.card.device == "cpu")
    width = step.width if autocast else step.stream
    return step.shape.intermediate_size * width


def _norm(step: Step) -> int:
    """Return what an RMS norm keeps: its input in fp32, one factor; if trained, the quotient."""
    quotient = step.shape.hidden_size * step.stream if step.full else 0
    return 4 * step.shape.hidden_size + 4 + quotient


def _inputs(step: Step, *names: str) -> int:
    """Return the inputs that linear modules keep, because a trained weight's gradient needs them.

    A frozen module keeps nothing. Modules with the same input share it, unless each copies it.
    """
    linears = step.shape.linears
    chosen = [name for name in names if step.full or name in step.adapted]
    if step.copies_inputs:
        inputs = sum(linears[name][0] for name in chosen)
    else:  # the input of o_proj is kept by the attention itself
        sources = {
            name[0] if name[0] == "d" else "x": linears[name][0]
            for name in chosen
            if name != "o_proj"
        }
        inputs = sum(sources.values())
    inner = 0 if step.full else step.config.rank * len(chosen)  # the output of each A
    width = step.width if step.full else step.adapter_width
    return (inputs + inner) * width + dropout_masks(step, *chosen)


def dropout_masks(step: Step, *names: str) -> int:
    """Return what adapters keep of which inputs they dropped: a byte each, on the CPU a number."""
    if not step.drops_inputs:
        return 0
    width = 1 if step.card.device == "cuda" else BYTES[step.config.adapter_dtype]
    return width * sum(step.shape.linears[name][0] for name in names if name in step.adapted)


def int8_inputs(step: Step) -> dict[str, int]:
    """Return the bytes for a token of each input that a layer's 8-bit modules keep.

    They keep it in an attribute, which checkpointing does not see: so every layer keeps its inputs
    from its forward pass until the whole backward pass is over (bitsandbytes, ``MatMul8bitLt``).
    """
    if not step.int8:
        return {}
    normed = step.shape.hidden_size * step.stream
    attended = step.shape.num_attention_heads * step.shape.head_dim * step.attention_width
    return {"qkv": normed, "o": attended, "gate_up": normed, "down": middle(step)}


def int8_unshared(step: Step) -> int:
    """Return what of those inputs nothing else in the layer keeps: no adapter, and no attention."""
    inputs, sharing = int8_inputs(step), [] if step.copies_inputs else step.adapted
    adapted = {module for module in inputs if any(name[0] in module for name in sharing)}
    return sum(size for module, size in inputs.items() if module not in adapted | {"o"})


def _attention(step: Step) -> int:
    """Return what attention keeps: queries, keys, values, its output, and row sums or scores.

    Eager attention repeats keys and values for each head. So does PyTorch's own before compute
    capability 8.0, where its flash kernel does not run.
    """
    shape, capability = step.shape, step.card.capability
    heads, width = shape.num_attention_heads, step.attention_width
    queries, keys = heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    normalized = (queries + keys) * 4 if shape.qk_norm else 0
    if step.config.attention == "eager":
        output = queries * ("o_proj" in step.adapted or step.full) * (not step.copies_inputs)
        scores = heads * step.config.max_length * _scores(step)
        return (3 * queries + output) * width + scores + normalized
    keys = queries if capability and capability < (8, 0) else keys
    return (2 * queries + 2 * keys) * width + 4 * heads + normalized


def _scores(step: Step) -> int:
    """Return the bytes of a score that eager attention keeps: softmax in fp32, and cast back."""
    return 4 if step.attention_width == 4 else 4 + step.attention_width


def _score_gradients(step: Step) -> int:
    """Return the bytes of a score when softmax goes backward, the widest moment of eager attention.

    The fp32 result, its gradient, and the gradient of the scores. CUDA's kernel first multiplies
    the former two (PyTorch's SoftMax.cu), and gives fp16 scores their gradient in fp16 at once.
    """
    if step.card.device != "cuda":
        return 4 + 4 + 4
    half = step.attention_width == 2 and step.config.dtype_on(step.card) == "float16"
    return 4 + 4 + 4 + (2 if half else 4)


def widest(step: Step) -> tuple[int, int]:
    """Return what a layer's backward pass adds at its widest: activations, dequantized weights.

    It begins with the gradient of the intermediate size, three tensors at once, beside the hidden
    state's gradient; the input of down_proj, if it was kept, is free by then. Where adapters cast
    16-bit inputs, the end of the forward pass is wider: the input and its fp32 copies, beside the
    residual, two norms' outputs, a quotient and the layer's own output. Eager attention is widest
    at its scores, when the MLP's half of the layer and the values are free again.
    """
    hidden, size = step.shape.hidden_size * step.stream, step.shape.intermediate_size
    width = step.width if step.full else step.adapter_width
    kept = size * width if step.full or "down_proj" in step.adapted else 0
    wide = 3 * middle(step) - kept + hidden
    if step.casts_inputs and not step.keeps_fp32:
        copies = BYTES[step.config.adapter_dtype] * (1 + step.drops_inputs)
        wide = max(wide, size * (step.width + copies) + 5 * hidden)
    if step.config.attention == "eager":
        heads, length = step.shape.num_attention_heads, step.config.max_length
        scores = heads * (
            length * (_score_gradients(step) - _scores(step))
            - step.shape.head_dim * step.attention_width
        )
        wide = max(wide, scores + hidden - _mlp_half(step))
    if step.config.method != "qlora":
        return step.tokens * wide, 0
    largest = (step.stream if step.int8 else step.width) * max(
        i * o for i, o in step.shape.linears.values()
    )
    return step.tokens * wide, max(0, largest - 2 * step.tokens * middle(step))  # gone by then


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
    return 3 * 4 * tokens * step.shape.vocab_size + head


def standing(step: Step) -> int:
    """Return what stands through the passes: the rotary table, and a mask that layers share.

    A loop that holds the model's output holds the logits too.
    """
    config, shape = step.config, step.shape
    rotary = 2 * config.max_length * shape.head_dim * step.stream
    masked = config.attention == "eager" and config.gradient_checkpointing
    mask = step.tokens * config.max_length * step.stream if masked else 0
    held = step.holds_logits and config.loss == "full"
    return rotary + mask + (step.tokens * shape.vocab_size * step.attention_width if held else 0)


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
