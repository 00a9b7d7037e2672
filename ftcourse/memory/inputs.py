"""What linear modules keep of their inputs for their backward pass, in bytes for one token."""

from collections.abc import Iterable

from ftcourse.memory.step import BYTES, Step


def kept_inputs(step: Step, modules: dict[str, str]) -> int:
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
    width = step.width if step.full else step.adapter_width
    return (inputs + inner) * width + dropout_masks(step, chosen)


def middle(step: Step) -> int:
    """Return the bytes for a token of one tensor of the intermediate size.

    A mixture has one for each of the token's experts, in the format of their weights.
    """
    shape = step.shape
    if shape.num_experts:
        return shape.num_experts_per_tok * shape.widths["expert"] * step.stream
    return shape.intermediate_size * step.linear_width


def dropout_masks(step: Step, modules: Iterable[str]) -> int:
    """Return what adapters keep of which inputs they dropped: a byte each, on the CPU a number."""
    if not step.drops_inputs:
        return 0
    width = 1 if step.card.device == "cuda" else BYTES[step.config.adapter_dtype]
    return width * sum(step.shape.linears[name][0] for name in modules if name in step.adapted)


def first_modules(step: Step) -> list[str]:
    """Return the linear modules that take the layer's input: attention's, or also the MLP's."""
    family = step.shape.family
    beside = family.norms in ("parallel", "shared")
    modules = family.linears if beside else family.attention
    return [name for name, words in modules.items() if words.startswith("hidden")]


def int8_inputs(step: Step) -> dict[str, int]:
    """Return the bytes for a token of each input that a layer's 8-bit modules keep.

    They keep it in an attribute, which checkpointing does not see: so every layer keeps its inputs
    from its forward pass until the whole backward pass is over (bitsandbytes, ``MatMul8bitLt``).
    """
    if not step.int8:
        return {}
    shape = step.shape
    sizes = {
        "hidden": shape.hidden_size * step.stream,
        "queries": shape.widths["queries"] * step.attention_width,
        "middle": middle(step),
    }
    sources = {_source(step, name): None for name in shape.linears}
    if shape.family.norms == "after" and step.config.gradient_checkpointing:
        del sources["hidden"]  # the layer's own input, which checkpointing keeps
    return {source: sizes[source.split()[-1]] for source in sources}


def int8_unshared(step: Step) -> dict[str, int]:
    """Return those inputs that nothing else in the layer keeps: no adapter, and no attention."""
    family = step.shape.family
    shared = set() if step.copies_inputs else {_source(step, name) for name in step.adapted}
    if family.norm == "layer" and step.widens:  # all but attention's output is cast
        shared &= {"queries"}
    shared |= set() if family.partial_rotary else {"queries"}
    return {source: size for source, size in int8_inputs(step).items() if source not in shared}


def int8_before_adapters(step: Step) -> int:
    """Return what of them the first layer does not keep: what comes before any adapter."""
    sources = {_source(step, name) for name in first_modules(step)}
    return sum(size for source, size in int8_unshared(step).items() if source in sources)


def _source(step: Step, name: str) -> str:
    """Return what a linear module takes in; those that take the same have one tensor together."""
    family = step.shape.family
    word = family.linears[name].split()[0]
    own = word == "hidden" and name in family.mlp and family.norms != "shared"
    return "second hidden" if own else word
