"""What fits a card, and the cheapest change that makes a run fit."""

from collections.abc import Iterator
from dataclasses import fields, replace

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import Card
from ftcourse.memory import predict_memory, show_bytes


def does_not_fit(config: FinetuneConfig, card: Card) -> CourseError:
    """Return the error for a run that needs more memory than there is, with what would fit."""
    need = predict_memory(config, card)
    change = cheapest_change(config, card)
    told = ", ".join(f"{name}={getattr(change, name)!r}" for name in _changed(config, change))
    return CourseError(
        f"A training step fits the card's memory, {show_bytes(card.memory)}.",
        f"it needs about {show_bytes(need.allocated)}, most of it {need.largest}\n{need}",
        f"Try {told}: predicted to fit." if told else "Use a smaller model or a larger card.",
    )


def cheapest_change(config: FinetuneConfig, card: Card) -> FinetuneConfig:
    """Return the first change that is predicted to fit, or the config itself if none is.

    The changes are tried in order of what they cost: first time only, then quality.
    """
    fits = (c for c in _changes(config) if predict_memory(c, card).allocated <= card.memory)
    return next(fits, config)


def _changes(config: FinetuneConfig) -> Iterator[FinetuneConfig]:
    config = replace(config, gradient_checkpointing=True)
    yield config
    config = replace(config, loss="chunked")
    yield config
    while config.batch_size > 1 and config.batch_size % 2 == 0:
        more = config.gradient_accumulation_steps * 2
        half = config.batch_size // 2
        config = replace(config, batch_size=half, gradient_accumulation_steps=more)
        yield config
    config = replace(config, optimizer="adamw_8bit")
    yield config
    for method in ("lora", "qlora"):
        if (config.method, method) != ("qlora", "lora"):
            config = replace(config, method=method, bits=4)
            yield config
    while config.max_length > 128:
        config = replace(config, max_length=config.max_length // 2)
        yield config


def _changed(old: FinetuneConfig, new: FinetuneConfig) -> list[str]:
    return [
        field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)
    ]
