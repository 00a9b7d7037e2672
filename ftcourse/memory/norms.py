"""What norms keep for their backward pass, and so of a layer's input, in bytes for one token."""

from ftcourse.memory.step import Step


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
    return step.stream if step.shape.family.norm == "layer" and not step.widens else 4


def layer_norms(step: Step) -> int:
    """Return what a layer's norms keep, with a factor for each token, or a mean and a factor.

    Two LayerNorms side by side keep their input once, unless each casts it.
    """
    family = step.shape.family
    factors = {"layer": 2 * _normed_width(step), "bare": 8}.get(family.norm, 4)
    shared = family.norms == "parallel" and _normed_width(step) == step.stream
    same = step.shape.hidden_size * step.stream * shared
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
