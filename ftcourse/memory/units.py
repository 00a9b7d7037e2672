"""Several GPUs that train one model: what each of them keeps, and what travels together.

DDP (Li et al. 2020, arXiv 2006.15704): each rank keeps the whole model, and gradients are averaged
in buckets. FSDP (Zhao et al. 2023, arXiv 2304.11277; ZeRO stage 3, arXiv 1910.02054): each rank
keeps a shard of each parameter, and a unit of them is gathered where it is needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError, check_choice
from ftcourse.memory.ledger import BYTES, Row, Shape
from ftcourse.memory.parameters import Weight, optimizer_rows, trained, weights_of
from ftcourse.memory.step import Step

SHARDINGS = ("ddp", "fsdp", "hybrid", "fsdp+qlora")
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
"""Bytes at which DDP closes its first bucket, and each further one."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together, one on each card."""

    world_size: int = 1
    sharding: str = "ddp"
    """``ddp``, ``fsdp``, ``hybrid``, or ``fsdp+qlora``, which is ``fsdp`` for a 4-bit base."""
    gpus_per_node: int = 8

    def __post_init__(self) -> None:
        """Refuse counts that are none, and nodes that are not full."""
        check_choice("sharding", self.sharding, SHARDINGS)
        for name in ("world_size", "gpus_per_node"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**20:
                must = f"{name} is a whole number, 1 or more."
                raise CourseError(must, f"{name}={value!r}"[:200], f"Try {name}=2.")
        if self.sharding == "hybrid" and self.world_size % self.shards:
            raise CourseError(
                "In hybrid sharding every node is full: world_size is a multiple of gpus_per_node.",
                f"world_size={self.world_size}, gpus_per_node={self.gpus_per_node}",
                f"Try world_size={ceil(self.world_size / self.shards) * self.shards}.",
            )

    @property
    def shards(self) -> int:
        """Into how many parts a parameter is cut."""
        match self.sharding:
            case "ddp":
                return 1
            case "hybrid":
                return min(self.world_size, self.gpus_per_node)
        return self.world_size

    @property
    def copies(self) -> int:
        """How many ranks hold the same shard, and average its gradient."""
        return self.world_size // self.shards


def as_ranks(config: FinetuneConfig, *choices: Any) -> Ranks:
    """Return the ranks of a run; raise CourseError for sharding that its method cannot have."""
    ranks = Ranks(*choices)
    if ranks.sharding == "fsdp+qlora" and config.method != "qlora":
        raise CourseError(
            "fsdp+qlora shards the 4-bit weights of a qlora run.",
            f"sharding='fsdp+qlora' with method={config.method!r}",
            "Use sharding='fsdp', or method='qlora'.",
        )
    if ranks.shards > 1 and config.method == "qlora" and config.bits == 8:
        raise CourseError(
            "Quantized weights are sharded in 4 bits; bitsandbytes' 8-bit modules are not.",
            f"bits=8 with sharding={ranks.sharding!r}",
            "Use bits=4, or sharding='ddp'.",
        )
    return ranks


def shard(shape: Shape, shards: int) -> Shape:
    """Return the shape of one process's shard.

    A tensor is cut by rows. Where they do not divide, the
    last shards are padded, so that all are alike.

    >>> shard((1536, 128), 2), shard((5, 128), 2)
    ((768, 128), (3, 128))
    """
    if not shape:
        return shape
    rows, *rest = shape
    return (ceil(rows / shards), *rest)


def stored_dtype(weight: Weight, step: Step) -> str:
    """Return the format of a parameter's shards.

    accelerate keeps what is trained in float32 beside 16-bit products, but not if the base is
    quantized (``fsdp2_prepare_model``).
    """
    widens = weight.trained and step.dtype != "float32" and not step.bits
    return "float32" if widens else weight.dtype


def travels(weight: Weight, step: Step) -> str:
    """Return the format in which a parameter is gathered: that of the 16-bit products."""
    return weight.dtype if step.dtype == "float32" else step.dtype


def shards_of(step: Step, ranks: Ranks) -> list[Weight]:
    """Return the parameters as a rank of FSDP stores them."""
    return [
        replace(w, shape=shard(w.shape, ranks.shards), dtype=stored_dtype(w, step))
        for w in weights_of(step)
    ]


@dataclass(frozen=True)
class Unit:
    """Parameters that FSDP gathers and frees together, such as those of a layer."""

    name: str
    weights: Sequence[Weight]
    """One of each: a unit that stands for all layers holds those of one."""
    layers: int = 1
    """How many such units there are."""
    frees: bool = True
    """Whether it is freed after its forward pass and gathered again for its backward pass."""

    def piece(self, weight: Weight, step: Step, ranks: Ranks) -> tuple[int, str]:
        """Return how many numbers of a parameter a rank sends, and their format.

        A 4-bit weight travels packed, in the format of the products (``bnb_4bit_quant_storage``).
        """
        if step.bits and weight.linear:
            packed = ceil(weight.numbers / 2 / BYTES[step.dtype])
            return ceil(packed / ranks.shards), step.dtype
        return prod(shard(weight.shape, ranks.shards)), travels(weight, step)

    def gathered_bytes(self, step: Step, ranks: Ranks) -> int:
        """Return the bytes of the whole unit, with the padding of its shards."""
        pieces = (self.piece(weight, step, ranks) for weight in self.weights)
        return sum(ranks.shards * numbers * BYTES[dtype] for numbers, dtype in pieces)

    def cast_bytes(self, step: Step, ranks: Ranks) -> int:
        """Return the bytes of this rank's shards that are cast before they are sent."""
        cast = [w for w in self.weights if stored_dtype(w, step) != travels(w, step)]
        pieces = (self.piece(w, step, ranks) for w in cast if not (step.bits and w.linear))
        return sum(numbers * BYTES[dtype] for numbers, dtype in pieces)

    def reduced_bytes(self, step: Step, ranks: Ranks) -> int:
        """Return the bytes of the unit's gradients, with padding, as they are summed up."""
        pieces = [self.piece(w, step, ranks) for w in self.weights if w.trained]
        return sum(ranks.shards * numbers * BYTES[dtype] for numbers, dtype in pieces)


def units(step: Step) -> dict[str, Unit]:
    """Return the units that accelerate makes: each layer, the ends of the model, and the rest.

    Embeddings that are the head, too, are gathered with it and stay whole until the step ends.
    """
    family, weights = step.shape.family, weights_of(step)
    inner = family.layers.partition(".")[0]  # below an adapter, a norm in "model" is not found
    norm = family.final_norm if step.full or inner != "model" else "-"
    tied = step.shape.tie_word_embeddings
    places = {f"{family.layers}.": "layer", f"{family.tables[0]}.": "tail" if tied else "embedding"}
    places |= {f"{norm}.": "tail", "lm_head.": "tail"}
    found: dict[str, list[Weight]] = {"root": [], "embedding": [], "layer": [], "tail": []}
    for weight in weights:
        place = next((p for start, p in places.items() if weight.name.startswith(start)), "root")
        found[place].append(weight)
    facts = {
        "root": ("root", 1, False),
        "embedding": (family.tables[0], 1, True),
        "layer": (f"{family.layers}.*", step.shape.num_hidden_layers, True),
        "tail": ("embeddings and head" if tied else "head", 1, False),
    }
    return {
        place: Unit(facts[place][0], tuple(members), *facts[place][1:])
        for place, members in found.items()
        if members
    }


def buckets(step: Step) -> Iterator[Row]:
    """Yield DDP's buckets: copies of the gradients, filled from the last parameter to the first.

    A bucket is closed by the gradient that fills it (``_compute_bucket_assignment_by_size``).
    """
    family, weights = step.shape.family, trained(step)
    first, *norms = family.layer_norms
    places = [f"{family.layers}.*.{end}" for end in (first, family.self_attn, *norms, "mlp")]
    layer = [w for place in places for w in weights if w.name.startswith(f"{place}.")]
    tables = [w for w in weights if w.name.startswith(tuple(family.tables))]
    rest = [w for w in weights if w not in layer and w not in tables]
    order = [*tables, *layer * step.shape.num_hidden_layers, *rest]
    filled, limit = 0, FIRST_BUCKET
    for number, weight in enumerate(reversed(order), 1):
        filled += weight.numbers * BYTES[weight.dtype]
        if filled >= limit or number == len(order):
            yield Row("DDP's bucket of gradients", (), weight.dtype, "overhead", filled)
            filled, limit = 0, BUCKET


def own_rows(rows: Iterable[Row], step: Step, ranks: Ranks) -> Iterator[Row]:
    """Yield what one rank holds through the whole step, of what one alone would hold."""
    stored = {weight.name: weight for weight in shards_of(step, ranks)}
    trained = [weight for weight in stored.values() if weight.trained]
    if step.card.device == "cpu" and step.full:  # accelerate's "cpu:0" is not "cpu": a copy
        tokens = (step.config.batch_size, step.config.max_length)
        yield Row.of("batch", tokens, "int64", "overhead")
    if ranks.shards == 1:
        yield from rows
        yield from buckets(step)
        return
    for row in rows:
        if row.part == "weights" and row.name in stored:
            yield _shard_of(row, stored[row.name].dtype, step, ranks)
        elif row.part not in ("optimizer", "gradients"):
            yield row
    yield from optimizer_rows(step, trained)


def _shard_of(row: Row, dtype: str, step: Step, ranks: Ranks) -> Row:
    """Return the row of a parameter's shards; 4-bit weights are cut in the products' format."""
    if row.dtype != "uint8":
        return Row.of(row.name, shard(row.shape, ranks.shards), dtype, row.part, row.count)
    width = BYTES[step.dtype]
    packed = shard((-(-row.shape[0] // width), 1), ranks.shards)
    return Row.of(row.name, packed, step.dtype, row.part, row.count)
