"""What fits a card, how much of it fits, and the cheapest change that makes a run fit."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from math import ceil
from typing import Any

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.errors import CourseError
from ftcourse.hardware import Card, detect
from ftcourse.memory.breakdown import PARTS, MemoryBreakdown, show_bytes
from ftcourse.memory.peak import predict_memory
from ftcourse.shape import load_shape

KNOBS = ("max_length", "batch_size", "rank")
"""The choices of which one asks: how much of it fits?"""
FAR = 2**20
"""Where ``largest`` stops to look: a million tokens, or sequences. A shape does not say how many
positions a model was trained for, and few were trained for more."""
_WHOLE = 4096
"""bitsandbytes keeps the states of a smaller matrix in 32 bits instead of 8 (``min_8bit_size``)."""


def verdict(breakdown: MemoryBreakdown, card: str, capacity: int) -> str:
    """Return one sentence: does the run fit, by how much, and which part is the largest.

    >>> gib = 2**30
    >>> run = MemoryBreakdown(9 * gib, gib, gib, gib, 0, source="predicted")
    >>> verdict(run, "T4", 14 * gib)
    'Fits the T4 with 2.00 GiB to spare; weights are the largest part.'
    >>> verdict(run, "T4", 10 * gib)
    'Does not fit the T4: 2.00 GiB over; weights are the largest part.'
    """
    room = capacity - breakdown.allocated
    fits = f"Fits the {card} with {show_bytes(room)} to spare"
    fails = f"Does not fit the {card}: {show_bytes(-room)} over"
    verb = "is" if breakdown.largest in ("optimizer", "overhead") else "are"
    return f"{fits if room >= 0 else fails}; {breakdown.largest} {verb} the largest part."


def difference(other: MemoryBreakdown, predicted: MemoryBreakdown) -> str:
    """Return how far another breakdown lies from the prediction, and the part most to blame.

    >>> one = MemoryBreakdown(900 * 2**20, 0, 0, 100 * 2**20, 0, source="predicted")
    >>> difference(replace(one, activations=112 * 2**20, source="simulated"), one)
    'simulated: +1.2 % (activations +12.00 MiB)'
    """
    share = other.allocated / predicted.allocated - 1
    apart = {part: other.parts[part] - predicted.parts[part] for part in PARTS}
    part = max(PARTS, key=lambda name: abs(apart[name]))
    if abs(share) < 0.0005:
        return f"{other.source}: the same within 0.1 %"
    sign = "+" if apart[part] > 0 else ""  # a negative number brings its own
    return f"{other.source}: {100 * share:+.1f} % ({part} {sign}{show_bytes(apart[part])})"


def largest(config: FinetuneConfig, knob: str, capacity: int, card: Card | None = None) -> int:
    """Return the largest value of a knob with which a step is predicted to fit ``capacity`` bytes.

    The knob is ``max_length`` or ``batch_size``, looked for up to ``FAR``, or ``rank``, up to the
    narrowest module's width: no product of two matrices has a higher rank. The answer is that
    bound where even the bound fits. Without a card, the arithmetic is for the device that is there.
    Raises CourseError with the cheapest change if not even 1 fits.

    >>> from ftcourse.hardware import CARDS
    >>> run, t4 = FinetuneConfig(model="llama-3.1-8b"), CARDS["T4"]
    >>> longest = largest(run, "max_length", t4.memory, t4)
    >>> need = [predict_memory(replace(run, max_length=longest + n), t4).allocated for n in (0, 1)]
    >>> need[0] <= t4.memory < need[1]
    True
    """
    card = card or detect()
    steady, end = _range(config, knob)

    def fits(value: int) -> bool:
        return predict_memory(replace(config, **{knob: value}), card).allocated <= capacity

    start = next((value for value in range(steady, 0, -1) if fits(value)), None)
    if start is None:
        error = does_not_fit(replace(config, **{knob: 1}), replace(card, memory=capacity))
        raise CourseError(error.must, f"even with {knob}=1 {error.got}", error.do)
    values = range(start, end + 1)
    return values[bisect_right(values, False, key=lambda value: not fits(value)) - 1]


def _range(config: FinetuneConfig, knob: str) -> tuple[int, int]:
    """Return the value of a knob from which on more of it never takes fewer bytes, and its bound.

    That is 1, but for the rank with an 8-bit optimizer: a matrix that grows beyond 4,096 numbers
    gets its states in 8 bits instead of 32, and then takes less.
    """
    if knob not in KNOBS or (knob == "rank" and config.method == "full"):
        raise CourseError(
            "What can be as large as fits is max_length, batch_size or, of an adapter, the rank.",
            f"knob={knob!r} with method={config.method!r}",
            "Ask for max_length or batch_size; other choices do not grow with their number.",
        )
    if knob != "rank":
        return 1, FAR
    modules = load_shape(config.model).linears
    narrow = min(min(modules[name]) for name in adapted_modules(replace(config, rank=1), modules))
    steady = ceil(_WHOLE / narrow) if "8bit" in config.optimizer else 1
    return min(steady, narrow), narrow


def does_not_fit(config: FinetuneConfig, card: Card) -> CourseError:
    """Return the error for a run that needs more memory than there is, with what would fit."""
    need = predict_memory(config, card)
    change = cheapest_change(config, card)
    told = ", ".join(f"{name}={getattr(change, name)!r}" for name in _changed(config, change))
    told += f": predicted to need {show_bytes(predict_memory(change, card).allocated)}"
    return CourseError(
        f"A training step fits the card's memory, {show_bytes(card.memory)}.",
        f"it needs about {show_bytes(need.allocated)}, most of it {need.largest}\n{need}",
        "Use a smaller model or a larger card." if change == config else f"Try {told}.",
    )


def cheapest_change(config: FinetuneConfig, card: Card) -> FinetuneConfig:
    """Return the config with the cheapest changes that make it fit, or itself if none do.

    Changes are added in order of what they cost, first time only, then quality, until the run is
    predicted to fit; then those that turn out not to be needed are taken back, the dearest first.
    A run that failed although it was predicted to fit gets a change that needs less.
    """
    limit = min(card.memory, predict_memory(config, card).allocated - 1)
    changes: dict[tuple[str, ...], dict[str, Any]] = {}

    def fits(*without: tuple[str, ...]) -> bool:
        kept = [change for names, change in changes.items() if names not in without]
        return predict_memory(_apply(config, kept), card).allocated <= limit

    for change in _changes(config):
        changes[tuple(change)] = change
        if fits():
            break
    else:
        return config
    for names in reversed(list(changes)):
        if fits(names):
            del changes[names]
    return _apply(config, changes.values())


def _changes(config: FinetuneConfig) -> Iterator[dict[str, Any]]:
    """Yield the changes, the cheapest first; each is tried together with those before it.

    A paged optimizer is not among them. Its states lie in memory that the driver moves between the
    card and the host, so how many of them the card holds at a moment is not for arithmetic to say.
    """
    yield {"gradient_checkpointing": True}
    yield {"loss": "chunked"}
    batch, passes = config.batch_size, config.gradient_accumulation_steps
    for size in (n for n in range(batch - 1, 0, -1) if batch % n == 0):  # the sum stays the same
        yield {"batch_size": size, "gradient_accumulation_steps": passes * batch // size}
    if config.optimizer in ("adamw_torch_fused", "adamw_torch", "paged_adamw_32bit"):
        yield {"optimizer": "adamw_8bit"}
    if config.method == "full":
        yield {"method": "lora"}
    yield {"method": "qlora", "bits": 4}
    length = config.max_length
    while length > 128:
        yield {"max_length": (length := length // 2)}


def _apply(config: FinetuneConfig, changes: Iterable[dict[str, Any]]) -> FinetuneConfig:
    for change in changes:
        config = replace(config, **change)
    return config


def _changed(old: FinetuneConfig, new: FinetuneConfig) -> list[str]:
    return [
        field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)
    ]
