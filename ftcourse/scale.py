"""What several cards cost: the seconds of a step by arithmetic, and what would do instead."""

from dataclasses import dataclass, replace
from typing import Any

from ftcourse.config import FinetuneConfig, check_run
from ftcourse.errors import CourseError
from ftcourse.hardware import GIB, Card
from ftcourse.memory import MemoryBreakdown, predict_memory
from ftcourse.memory.fit import Fit, judge_fit
from ftcourse.memory.sharding import LINKS, Link, communication, seconds_on
from ftcourse.memory.two_cards import RanksRecord
from ftcourse.shape import ModelShape, load_shape

# Dense products of 16-bit matrices with sums in 32 bits, in 10**12 operations a second, as the
# makers' data sheets state them: NVIDIA's for T4, L4, V100 (PCIe), A100, H100 (SXM), and its papers
# on the Ampere GA102 and the Ada architecture for the GeForce cards.
PEAK = {"Tesla T4": 65, "RTX 3060": 25.5, "V100 16GB": 112, "L4": 121, "RTX 3090": 71}
PEAK |= {"RTX 4090": 165.2, "A100 40GB": 312, "A100 80GB": 312, "H100 80GB": 989.4}
USED = 0.4
"""The share of a card's peak that we assume a run to reach. An assumption, not a measurement."""
COUNTS = (1, 2, 4, 8)
FREE = ("checkpointing", "loss in chunks", "one text a pass")
"""Changes after which a step gives the same numbers; they cost only time."""
ALL = "all that costs only time"


def operations(
    config: FinetuneConfig,
    shape: ModelShape | None = None,
) -> float:
    """Return the operations of one card's step.

    A product with a weight takes two for each token: one
    multiplication and one sum. The backward pass takes as many
    for the gradient of the input, and again for the gradient of
    the weight if it is trained. Source: Kaplan et al. 2020,
    arXiv 2001.08361, section 2.1; there it is 6 a weight.
    """
    shape = shape or load_shape(config.model)
    sizes = [i * o for i, o in shape.linears.values()]
    layers = shape.num_hidden_layers * sum(sizes)
    head = shape.vocab_size * shape.hidden_size
    # A token looks back at half of the others, in the mean, and
    # does so twice: for its scores, and for the mix of values.
    width = shape.num_attention_heads * shape.head_dim
    looks = shape.num_hidden_layers * width * config.max_length
    passes = 3 if config.method == "full" else 2
    products = passes * (layers + head) + 3 * looks
    products += (layers + looks) * config.gradient_checkpointing
    products += head * (config.loss == "chunked")
    tokens = config.batch_size * config.max_length
    repeats = config.gradient_accumulation_steps
    return 2 * products * tokens * repeats


@dataclass(frozen=True)
class Seconds:
    """How long a step takes, predicted: what a card computes, and what it sends meanwhile."""

    computing: float
    sending: float

    @property
    def least(self) -> float:
        """If all is sent while the card computes."""
        return max(self.computing, self.sending)

    @property
    def most(self) -> float:
        """If the card waits for all that is sent."""
        return self.computing + self.sending

    def __repr__(self) -> str:
        """Return both, and the two ends between which a step is."""
        both = f"computing {self.computing:.3g} s, sending {self.sending:.3g} s"
        return f"{both}, a step {self.least:.3g} to {self.most:.3g} s (predicted)"


def step_seconds(
    config: FinetuneConfig,
    card: Card,
    world_size: int = 1,
    sharding: str = "ddp",
    link: Link = LINKS["PCIe 4.0 x16"],
    used: float = USED,
) -> Seconds:
    """Return the seconds of a step, by arithmetic.

    ``used`` is the share of the card's peak that the run reaches.
    """
    check_run(config, card)
    if card.name not in PEAK:
        must = "We know the operations a second of " + ", ".join(PEAK) + "."
        do = f"Choose one of those cards, or say its peak: PEAK[{card.name!r}] = 71."
        raise CourseError(must, card.name, do)
    computing = operations(config) / (used * PEAK[card.name] * 1e12)
    traffic = communication(config, world_size, sharding, card=card)
    return Seconds(computing, seconds_on(traffic, link))


def used_share(run: RanksRecord) -> float:
    """Return the share of its cards' peak that a run reached.

    Recorded are its seconds, those of waiting included. The
    operations are our arithmetic, with checkpointing.
    """
    one = replace(run.config, batch_size=1)
    work = operations(one, ModelShape.from_config(run.shape))
    peak = PEAK[run.card] * 1e12
    return run.rows * work / (run.cards * run.seconds * peak)


@dataclass(frozen=True)
class Way:
    """One way to run a fine-tune, and whether a card of it holds its part."""

    what: str
    config: FinetuneConfig
    cards: int
    sharding: str
    step: MemoryBreakdown
    """The bytes of one card."""
    fit: Fit

    def __repr__(self) -> str:
        """Return the way in a line."""
        count = f"{self.cards} card{'s' * (self.cards > 1)}"
        size = f"{self.step.allocated / GIB:.1f} GiB each"
        return f"{self.what:<32}{count:>8}{size:>16}  {self.fit.answer}"


class Ways(tuple[Way, ...]):
    """Ways to run, one a line."""

    def __repr__(self) -> str:
        """Return the table."""
        return "\n".join(map(repr, self))


def way(
    what: str, config: FinetuneConfig, card: Card, cards: int = 1, sharding: str = "fsdp"
) -> Way:
    """Return one way to run, judged."""
    step = predict_memory(config, card, world_size=cards, sharding=sharding)
    return Way(what, config, cards, sharding, step, judge_fit(step, card))


def ways(config: FinetuneConfig, card: Card) -> Ways:
    """Return a run as it is, with each change on one card, and sharded over more."""
    one = {"as it is": {}} | changes(config)
    found = [way(what, replace(config, **change), card) for what, change in one.items()]
    counts = COUNTS[1:] if (config.method, config.bits) != ("qlora", 8) else ()  # not sharded
    return Ways([*found, *(way("FSDP", config, card, count) for count in counts)])


def changes(config: FinetuneConfig) -> dict[str, dict[str, Any]]:
    """Return what would take fewer bytes, by name; first what costs only time."""
    texts = config.batch_size * config.gradient_accumulation_steps
    named = {
        "checkpointing": {"gradient_checkpointing": True},
        "loss in chunks": {"loss": "chunked"},
        "one text a pass": {"batch_size": 1, "gradient_accumulation_steps": texts},
        "8-bit AdamW": {"optimizer": "adamw_8bit"},
        "LoRA": {"method": "lora"} if config.method == "full" else {},
        "QLoRA": {"method": "qlora", "bits": 4},
        "half the length": {"max_length": max(1, config.max_length // 2)},
    }
    return {what: each for what, each in named.items() if replace(config, **each) != config}


def cheapest_way(
    config: FinetuneConfig, card: Card, cards: int = 1, sharding: str = "fsdp"
) -> Way | None:
    """Return the first way that fits, in the course's order; None if none does.

    First what costs only time, then the same with FSDP and on more cards, then what changes the
    result.
    """
    found = changes(config)
    free = {what: change for what, change in found.items() if what in FREE}
    every = {name: value for change in free.values() for name, value in change.items()}
    dear = {what: change for what, change in found.items() if what not in FREE}
    plans = [(cards, sharding)] + [(cards, "fsdp")] * (cards > 1 and sharding == "ddp")
    plans += [(count, "fsdp") for count in COUNTS if count > cards]

    def first(plan: tuple[int, str], tries: dict[str, dict[str, Any]]) -> Way | None:
        words = f"FSDP on {plan[0]} GPUs" if plan != plans[0] else ""
        for what, change in tries.items():
            name = ", ".join(filter(None, [words, what])) or "as it is"
            found = way(name, replace(config, **change), card, *plan)
            if found.fit.answer == "yes":
                return found
        return None

    for plan in plans:
        if last := first(plan, {ALL: every}):  # else none of them alone would be enough
            return first(plan, {"": {}} | free) or last
    more = {f"{what}, {ALL}": every | change for what, change in dear.items()}
    return first(plans[0], dear | more)
