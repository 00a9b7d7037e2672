"""The parameters of a model, by arithmetic."""

from math import prod

from ftcourse.shape.model_shape import ModelShape


def linear_parameters(shape: ModelShape) -> int:
    """Return the number of weights in the linear modules of all layers: what gets quantized."""
    return shape.num_hidden_layers * sum(i * o for i, o in shape.linears.values())


def layer_matrices(shape: ModelShape) -> list[int]:
    """Return the sizes of a layer's matrices in the order of its work, experts as one or two."""
    return [i * o for i, o in shape.linears.values()] + [prod(sides) for sides in _experts(shape)]


def parameter_count(shape: ModelShape) -> int:
    """Return the number of parameters, a tied output head counted once.

    >>> parameter_count(ModelShape.named("llama-3.1-8b"))
    8030261248
    """
    return linear_parameters(shape) + sum(map(prod, other_parameters(shape)))


def other_parameters(shape: ModelShape) -> list[tuple[int, ...]]:
    """Return the shape of each parameter outside the layers' linear modules.

    They are the tables of words and positions, the head, norms, biases and a mixture's experts,
    which transformers stores as two tensors a layer. It quantizes none of these.
    """
    hidden, layers, norm = shape.hidden_size, shape.num_hidden_layers, norm_parameters(shape)
    tables = [(shape.vocab_size, hidden)] * (1 if shape.tie_word_embeddings else 2)
    tables += [(shape.learned_positions, hidden)] * (shape.learned_positions > 0)
    biases = [(shape.linears[name][1],) for name in shape.biased]
    layer = norm * shape.family.norms_per_layer + biases + _head_norms(shape) + _experts(shape)
    return tables + layer * layers + norm + [(shape.vocab_size,)] * shape.family.head_bias


def norm_parameters(shape: ModelShape) -> list[tuple[int, ...]]:
    """Return the parameters of one norm: a weight, none, or a weight and a bias."""
    return [(shape.hidden_size,)] * {"bare": 0, "layer": 2}.get(shape.family.norm, 1)


def _head_norms(shape: ModelShape) -> list[tuple[int, ...]]:
    """Return the norms of queries and keys: one for each head's width, or one for all heads."""
    widths = shape.widths
    sizes = {"head": (shape.head_dim,) * 2, "all": (widths["queries"], widths["keys"])}
    return [(size,) for size in sizes.get(shape.family.qk_norm, ())]


def _experts(shape: ModelShape) -> list[tuple[int, ...]]:
    """Return the router's weights and the experts', the latter in two tensors."""
    count, hidden, width = shape.num_experts, shape.hidden_size, shape.widths["expert"]
    if not count:
        return []
    return [(count, hidden), (count, 2 * width, hidden), (count, hidden, width)]
