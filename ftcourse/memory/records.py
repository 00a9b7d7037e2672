"""Runs that somebody measured on a real card, and the one that is nearest to a planned run."""

import json
import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.files import course_path
from ftcourse.hardware import Card, detect
from ftcourse.memory.breakdown import PARTS, MemoryBreakdown, show_bytes
from ftcourse.memory.peak import predict_memory
from ftcourse.shape import REQUIRED, load_shape

# Two models with the same of these have the same bytes, however they were trained and named.
_SHAPE = ("model_type", "num_key_value_heads", *REQUIRED)
_ADAPTER = ("rank", "target_modules", "adapter_dtype")
_QUANTIZED = ("bits", "quant_type", "double_quant", "upcast")
_ALWAYS = (
    "batch_size",
    "max_length",
    "dtype",
    "optimizer",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "attention",
    "loss",
)


@dataclass(frozen=True)
class Record:
    """One run that was measured and written down: never a prediction."""

    config: FinetuneConfig
    """The run's config, with the number format that ``auto`` stood for."""
    shape: dict[str, Any]
    """The numbers of the model's config."""
    allocated: int
    """Live bytes at the peak, ``torch.cuda.max_memory_allocated``."""
    reserved: int | None
    """Bytes that the caching allocator took; None where they were not published."""
    card: str
    date: str
    """Day of the measurement as YYYY-MM-DD, or its month."""
    by: str
    """Who measured it."""
    note: str = ""
    """What their training loop does differently from ``finetune``."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library versions; empty where they were not published."""
    breakdown: MemoryBreakdown | None = None
    """The five parts; None where only the sum was published."""
    tokens_per_second: float | None = None
    loop: dict[str, bool] = field(default_factory=dict)
    """How the training loop differs from the Trainer's, as arguments of ``memory.Step``."""

    def __repr__(self) -> str:
        """Say what was measured, where, when, by whom, and with which torch."""
        torch = f" with torch {self.versions['torch']}" if "torch" in self.versions else ""
        size = show_bytes(self.allocated)
        return f"recorded: {size} on {self.card}, {self.date}, by {self.by}{torch}"


@dataclass(frozen=True)
class Nearest:
    """The recorded run that is nearest to a planned one, and what differs."""

    record: Record
    differs: dict[str, tuple[str, str]]
    """A field of the config, or ``card``: its recorded value and the planned one."""

    def __repr__(self) -> str:
        """Return one sentence: the record, then what differs."""
        found = [f"{name} {was} instead of {asked}" for name, (was, asked) in self.differs.items()]
        found += [self.record.note] if self.record.note else []
        text = f"differs: {', '.join(found)}" if found else "the same choices"
        return f"{self.record}; {text}"


def nearest_record(config: FinetuneConfig, card: Card | None = None) -> Nearest | None:
    """Return the nearest recorded run of the same model and method, or None if there is none.

    The nearest one differs in the fewest fields, and the card counts as a field. Among equals it is
    the one whose predicted bytes are nearest. Without a card, we ask for the device that is here.
    """
    card, shape = card or detect(), vars(load_shape(config.model))
    found = [
        Nearest(record, _differences(record, config, card))
        for record in recorded_runs()
        if record.config.method == config.method
        and all(record.shape.get(name) == shape[name] for name in _SHAPE)
    ]
    asked = predict_memory(config, card).allocated

    def distance(near: Nearest) -> tuple[int, int]:
        run = replace(near.record.config, model=config.model)
        return len(near.differs), abs(predict_memory(run, card).allocated - asked)

    return min(found, key=distance, default=None)


@cache
def recorded_runs() -> tuple[Record, ...]:
    """Return all recorded runs of ``data/measured``: our own, and those that others published."""
    files = sorted(course_path("data/measured").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    return tuple(_read(line) for line in lines if "measured" in line)


def _read(line: dict[str, Any]) -> Record:
    """Return the record of a line; a published one has only the sum of the five parts."""
    measured = dict(line["measured"])
    facts = {name: measured[name] for name in ("reserved", "date", "versions")}
    facts["allocated"], facts["card"] = measured.pop("allocated"), measured["device"]
    for name in ("shape", "by", "note", "tokens_per_second", "loop"):
        if name in line:
            facts[name] = line[name]
    if set(PARTS) <= set(measured):
        facts["breakdown"] = MemoryBreakdown(**measured | {"source": "recorded"})
    return Record(FinetuneConfig(**line["config"] | {"dtype": line["dtype"]}), **facts)


def _differences(record: Record, config: FinetuneConfig, card: Card) -> dict[str, tuple[str, str]]:
    """Return the fields that decide bytes and differ, with the recorded and the planned value."""
    asked = replace(config, dtype=config.dtype_on(card))
    names = _ALWAYS + _ADAPTER * (config.method != "full") + _QUANTIZED * (config.method == "qlora")
    pairs = {n: (_say(getattr(record.config, n)), _say(getattr(asked, n))) for n in names}
    differs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return differs if is_card(record.card, card) else {"card": (record.card, card.name)} | differs


def is_card(device: str, card: Card) -> bool:
    """Return whether a device, named as torch names it, is a card that we know.

    >>> from ftcourse.hardware import CARDS
    >>> is_card("NVIDIA A100-SXM4-80GB", CARDS["A100 80GB"])
    True
    """
    return set(re.findall(r"\w+", card.name)) <= set(re.findall(r"\w+", device))


def _say(value: Any) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value)
