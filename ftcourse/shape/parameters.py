"""The parameters of a model, by arithmetic: their names, shapes, and how often each is there."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ftcourse.shape.model_shape import ModelShape


@dataclass(frozen=True)
class Parameter:
    """A parameter of a model, or the same one of each layer."""

    name: str
    """In transformers' words; ``*`` stands for the layers' numbers."""
    shape: tuple[int, ...]
    count: int = 1
    """How many there are: one, or one in each layer."""
    linear: str = ""
    """The linear module of a layer whose weight it is: what gets quantized, or an adapter."""
    bias: bool = False
    """Whether it is the bias of such a module."""

    @property
    def numbers(self) -> int:
        """How many numbers one of them has."""
        return prod(self.shape)


def parameter_count(shape: ModelShape) -> int:
    """Return the number of parameters, a tied output head counted once.

    >>> parameter_count(ModelShape.named("llama-3.1-8b"))
    8030261248
    """
    return sum(each.numbers * each.count for each in parameters(shape))


def parameters(shape: ModelShape) -> list[Parameter]:
    """Return all parameters of a model, in the order in which a forward pass meets them."""
    family, hidden, words = shape.family, shape.hidden_size, shape.vocab_size
    rows = [words, shape.learned_positions]
    tables = [
        Parameter(f"{path}.weight", (count, hidden))
        for path, count in zip(family.tables, rows, strict=False)
    ]
    layer = [
        Parameter(f"{family.layers}.*.{name}", sides, shape.num_hidden_layers, *kind)
        for name, sides, *kind in _of_a_layer(shape)
    ]
    head = [] if shape.tie_word_embeddings else [Parameter("lm_head.weight", (words, hidden))]
    bias = [Parameter("lm_head.bias", (words,))] * family.head_bias
    final = [Parameter(f"{family.final_norm}.{end}", (hidden,)) for end in _norm_ends(shape)]
    return [*tables, *layer, *final, *head, *bias]


def _norm_ends(shape: ModelShape) -> tuple[str, ...]:
    """Return the parameters of one norm: a weight, none, or a weight and a bias."""
    return {"bare": (), "layer": ("weight", "bias")}.get(shape.family.norm, ("weight",))


def _of_a_layer(shape: ModelShape) -> Iterator[tuple]:
    """Yield the fields of each parameter of a layer, but for how many there are."""
    family, hidden = shape.family, shape.hidden_size
    for name, (inputs, outputs) in shape.linears.items():
        path = family.path_of(name)
        sides = (inputs, outputs) if family.transposed else (outputs, inputs)
        yield f"{path}.weight", sides, name
        if name in shape.biased:
            yield f"{path}.bias", (outputs,), "", True
    queries, keys = shape.widths["queries"], shape.widths["keys"]
    heads = (shape.head_dim, shape.head_dim)
    sizes = {"": (), "all": (queries, keys)}.get(family.qk_norm, heads)
    for name, size in zip(("q_norm", "k_norm"), sizes, strict=False):
        yield f"{family.self_attn}.{name}.weight", (size,)
    if count := shape.num_experts:  # transformers stores a layer's experts as two tensors
        width = shape.widths["expert"]
        yield "mlp.gate.weight", (count, hidden)
        yield "mlp.experts.gate_up_proj", (count, 2 * width, hidden)
        yield "mlp.experts.down_proj", (count, hidden, width)
    for name in family.layer_norms:
        yield from ((f"{name}.{end}", (hidden,)) for end in _norm_ends(shape))
