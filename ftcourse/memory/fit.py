"""Whether a run fits a card, how much of it fits, and the cheapest change that makes it fit."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any, Literal

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.errors import CourseError
from ftcourse.hardware import GIB, Card, detect
from ftcourse.memory.breakdown import PARTS, MemoryBreakdown, show_bytes
from ftcourse.memory.parameters import EIGHT_BIT_FROM, PAGED_FROM
from ftcourse.memory.peak import predict_memory
from ftcourse.shape import is_known, load_shape

GAPS = 0.21
"""Share of the tensors' bytes that we allow for gaps between them, on a GPU.

PyTorch's caching allocator takes memory in segments, and parts of them stay empty: at most this
share in three of four published runs on a T4. The median is 12 %, the highest 49 %; those above
26 % have eager attention (``data/measured/published_t4.jsonl``). On a nearly full card PyTorch
gives empty segments back before it fails: of twelve such QLoRA runs, the eight with room for 17 %
or more completed, the four with 11 % or less did not (``data/measured/published_t4_limits.jsonl``).
"""
CONTEXT_BYTES = 2**29
"""Bytes that we allow for the CUDA context of a card of which we know no measurement."""
LIBRARY_BYTES = GIB
"""Bytes that we allow on a CPU for Python and its libraries: an allowance, not a measurement."""
GROWING_FIELDS = ("max_length", "batch_size", "rank")
"""The fields of which we can ask: how much of it fits?"""
SEARCH_END = 2**20
"""Where ``largest`` stops: at a million tokens, or sequences. Few models were trained for more."""


@dataclass(frozen=True)
class Fit:
    """Whether a training step fits a device, and why. The repr is the sentence for the reader."""

    answer: Literal["yes", "narrowly", "no"]
    summary: str
    """The answer in words."""
    reason: str
    """The bytes that decide it, and the largest part."""

    def __repr__(self) -> str:
        """Return the summary and the reason as one sentence."""
        return f"{self.summary}: {self.reason}."


def context_bytes(card: Card) -> int:
    """Return the bytes of a card's CUDA context, measured or allowed for; a CPU has none."""
    return 0 if card.device == "cpu" else card.context or CONTEXT_BYTES


def judge_fit(breakdown: MemoryBreakdown, card: Card) -> Fit:
    """Return whether a step fits a device: yes; narrowly, so that it may fail; or no.

    On a GPU the tensors and the CUDA context must fit. With room for the gaps between tensors, too
    (``GAPS``), the answer is yes; without it, narrowly. On a CPU the tensors must fit, and the room
    is for Python and its libraries (``LIBRARY_BYTES``). Other programs are not counted.

    >>> card = Card("Tesla T4", 14 * GIB, (7, 5), context=GIB)
    >>> steps = [MemoryBreakdown(n * GIB, 0, 0, 0, 0, source="predicted") for n in (10, 11, 14)]
    >>> [judge_fit(step, card).answer for step in steps]
    ['yes', 'narrowly', 'no']
    """
    tensors, context = breakdown.allocated, context_bytes(card)
    text = partial(show_bytes, like=tensors)  # one unit in one sentence
    margin, purpose = LIBRARY_BYTES, "Python and its libraries"
    needs, part = f"{text(tensors)} of tensors", f"largest part: {breakdown.largest_part}"
    if card.device == "cuda":
        margin, purpose = round(GAPS * tensors), "gaps between tensors"
        needs += f" and {'' if card.context else 'about '}{text(context)} of CUDA context"
    left = card.memory - tensors - context
    if left < 0:
        reason = f"{needs} are {text(-left)} over; {part}"
        return Fit("no", f"Does not fit the {card.name}", reason)
    if left < margin:
        reason = f"{needs} leave {text(left)}, and {purpose} may take {text(margin)}"
        return Fit("narrowly", f"Fits the {card.name} narrowly and may fail", f"{reason}; {part}")
    spare = f"Fits the {card.name} with {text(left - margin)} to spare"
    return Fit("yes", spare, f"{needs}, with {text(margin)} allowed for {purpose}; {part}")


def refuse_if_too_large(config: FinetuneConfig, card: Card | None = None) -> None:
    """Raise CourseError if a step surely does not fit the device, before anything is loaded.

    A step that may fail is not refused, nor is a family that the arithmetic does not know. The
    prediction is for ``max_length`` tokens: for shorter data, replace it with their longest length.
    Without a card, for the device that is there.
    """
    card = card or detect()
    if is_known(config.model) and judge_fit(predict_memory(config, card), card).answer == "no":
        raise does_not_fit(config, card)


def difference(other: MemoryBreakdown, predicted: MemoryBreakdown) -> str:
    """Return how far another breakdown is from the prediction, and the part that differs most.

    >>> one = MemoryBreakdown(900 * 2**20, 0, 0, 100 * 2**20, 0, source="predicted")
    >>> difference(replace(one, activations=112 * 2**20, source="simulated"), one)
    'simulated: +1.2 % (activations +12.00 MiB)'
    """
    share = other.allocated / predicted.allocated - 1
    apart = {part: other.parts[part] - predicted.parts[part] for part in PARTS}
    part = max(PARTS, key=lambda name: abs(apart[name]))
    if abs(share) < 0.0005:
        return f"{other.source}: the same within 0.1 %"
    size = "+" * (apart[part] > 0) + show_bytes(apart[part], like=predicted.allocated)
    return f"{other.source}: {100 * share:+.1f} % ({part} {size})"


def largest(config: FinetuneConfig, field: str, capacity: int, card: Card | None = None) -> int:
    """Return the largest value of a field with which a step fits a card of ``capacity`` bytes.

    It fits as ``judge_fit`` says, with the margin. The field is ``max_length`` or ``batch_size``,
    up to ``SEARCH_END``, or ``rank``, up to the width of the narrowest module. Without a card, the
    arithmetic is for the device that is there. Raises CourseError with the cheapest change if not
    even 1 fits.

    >>> from ftcourse.hardware import CARDS
    >>> run, t4 = FinetuneConfig(model="llama-3.1-8b"), CARDS["T4"]
    >>> longest = largest(run, "max_length", t4.memory, t4)
    >>> steps = [predict_memory(replace(run, max_length=longest + n), t4) for n in (0, 1)]
    >>> [judge_fit(step, t4).answer for step in steps]
    ['yes', 'narrowly']
    """
    card = replace(card or detect(), memory=capacity)

    def fits(value: int) -> bool:
        return _surely_fits(replace(config, **{field: value}), card)

    for values in reversed(_growing_ranges(config, field)):
        if fits(values[0]):
            return values[bisect_right(values, False, key=lambda value: not fits(value)) - 1]
    error = does_not_fit(replace(config, **{field: 1}), card)
    raise CourseError(error.must, f"even with {field}=1: {error.got}", error.do)


def _growing_ranges(config: FinetuneConfig, field: str) -> list[range]:
    """Return the ranges of a field's values in which more of it never takes fewer bytes.

    For tokens that is one range. A higher rank can take fewer bytes where an adapter's matrix
    becomes so large that bitsandbytes keeps its states differently: there a new range begins.
    """
    if field not in GROWING_FIELDS or (field == "rank" and config.method == "full"):
        raise CourseError(
            "The field is max_length, batch_size or, for an adapter, rank.",
            f"field={field!r} with method={config.method!r}",
            "Ask for max_length or batch_size; other fields are not numbers that fill a card.",
        )
    if field != "rank":
        return [range(1, SEARCH_END + 1)]
    linears = load_shape(config.model).linears
    names = adapted_modules(replace(config, rank=1), linears)
    widths = {width for name in names for width in linears[name]}
    starts = {ceil(numbers / width) for numbers in (EIGHT_BIT_FROM, PAGED_FROM) for width in widths}
    starts = sorted({1} | {rank for rank in starts if rank <= min(widths)})
    return [range(*ends) for ends in pairwise([*starts, min(widths) + 1])]


def _surely_fits(config: FinetuneConfig, card: Card) -> bool:
    return judge_fit(predict_memory(config, card), card).answer == "yes"


def does_not_fit(config: FinetuneConfig, card: Card) -> CourseError:
    """Return the error for a run that needs more memory than there is, with what would fit."""
    need = predict_memory(config, card)
    change = cheapest_change(config, card)
    advice = ", ".join(f"{n}={v!r}" for n, v in vars(change).items() if v != getattr(config, n))
    advice += f": predicted to need {show_bytes(predict_memory(change, card).allocated)}"
    return CourseError(
        f"A training step fits the card's memory, {show_bytes(card.memory)}.",
        f"{judge_fit(need, card).reason}\n{need}",
        "Use a smaller model or a larger card." if change == config else f"Try {advice}.",
    )


def cheapest_change(config: FinetuneConfig, card: Card) -> FinetuneConfig:
    """Return the config with the cheapest changes that make it fit, or itself if none do.

    We add changes in order of what they cost, first time only, then quality, until the run fits
    with the margin. Then we take back those that turn out not to be needed, the most expensive
    first. A run that failed although it was predicted to fit gets a change that needs less.
    """
    before = predict_memory(config, card).allocated
    changes: dict[tuple[str, ...], dict[str, Any]] = {}

    def changed(*without: tuple[str, ...]) -> FinetuneConfig:
        kept = (change for names, change in changes.items() if names not in without)
        return replace(config, **{name: value for change in kept for name, value in change.items()})

    def fits(tried: FinetuneConfig) -> bool:
        return predict_memory(tried, card).allocated < before and _surely_fits(tried, card)

    for change in smaller_changes(config):
        changes[tuple(change)] = change
        if fits(changed()):
            break
    else:
        return config
    for names in reversed(list(changes)):
        if fits(changed(names)):
            del changes[names]
    return changed()


def smaller_changes(config: FinetuneConfig) -> Iterator[dict[str, Any]]:
    """Yield the changes in the order of trying; each is tried together with those before it.

    First those after which a step gives the same numbers, for more time; then those that change
    numbers; shorter texts are last.
    A paged optimizer is not among them. The driver moves its states between the card and the host,
    so arithmetic cannot say how many of them the card holds at a moment.
    """
    yield {"gradient_checkpointing": True}
    yield {"loss": "chunked"}
    batch, passes = config.batch_size, config.gradient_accumulation_steps
    for size in (n for n in range(batch - 1, 0, -1) if batch % n == 0):  # the sum stays the same
        yield {"batch_size": size, "gradient_accumulation_steps": passes * batch // size}
    if config.upcast:
        yield {"upcast": False}
    if config.optimizer in ("adamw_torch_fused", "adamw_torch", "paged_adamw_32bit"):
        yield {"optimizer": "adamw_8bit"}
    if config.method == "full":
        yield {"method": "lora"}
    yield {"method": "qlora", "bits": 4}
    length = config.max_length
    while length > 128:
        yield {"max_length": (length := length // 2)}
