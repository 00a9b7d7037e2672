"""Runs that somebody measured on a real card, and the one that is nearest to a run one plans."""

import json
import re
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.files import course_path
from ftcourse.hardware import Card, detect
from ftcourse.memory.breakdown import MemoryBreakdown, show_bytes
from ftcourse.memory.peak import predict_memory
from ftcourse.shape import load_shape

Shape = dict[str, Any]

# Two models with the same of these have the same bytes, however they were trained and named.
_SHAPE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
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

# What publishers say of all their runs at once: see data/measured/README.md for where.
_THEIRS = {
    "fitcheck": (
        {"dtype": "float16", "optimizer": "adamw_torch", "double_quant": False},
        {"card": "Tesla T4", "note": "its own training loop, without autocast"},
    ),
    "litgpt": (
        {
            "dtype": "bfloat16",
            "adapter_dtype": "bfloat16",
            "optimizer": "adamw_torch",
            "gradient_checkpointing": False,
        },
        {
            "card": "NVIDIA A100-SXM4-40GB",
            "date": "2023-10",
            "note": "its own layers and training loop",
            "versions": {"torch": "2.1.0", "bitsandbytes": "0.41.1"},
        },
    ),
}


@dataclass(frozen=True)
class Record:
    """One run that was measured and written down: never a prediction."""

    config: FinetuneConfig
    """The run's choices, with the number format that ``auto`` stood for."""
    shape: Shape
    """The numbers of the model's config."""
    allocated: int
    """Live bytes at the peak, ``torch.cuda.max_memory_allocated``."""
    card: str
    date: str
    """Day of the measurement as YYYY-MM-DD, or its month."""
    by: str
    """Who measured it."""
    note: str = ""
    """What they did in another way than ``finetune`` does."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library versions; empty where they were not published."""
    breakdown: MemoryBreakdown | None = None
    """The five parts; None where only the sum was published."""
    tokens_per_second: float | None = None

    def __repr__(self) -> str:
        """Say what was measured, where, when, by whom, and with which torch."""
        torch = f" with torch {self.versions['torch']}" if "torch" in self.versions else ""
        where = f"on {self.card}, {self.date}"
        return f"recorded: {show_bytes(self.allocated)} {where}, by {self.by}{torch}"


@dataclass(frozen=True)
class Nearest:
    """The recorded run that is nearest to a planned one, and what differs."""

    record: Record
    differs: dict[str, tuple[str, str]]
    """Name of a choice to what was recorded and what is asked for."""

    def __repr__(self) -> str:
        """Return one sentence: the record, then what differs."""
        told = [f"{name} {was} instead of {asked}" for name, (was, asked) in self.differs.items()]
        told += [self.record.note] if self.record.note else []
        return f"{self.record}; " + (f"differs: {', '.join(told)}" if told else "the same choices")


def nearest_record(config: FinetuneConfig, card: Card | None = None) -> Nearest | None:
    """Return the nearest recorded run of the same model and method, or None if there is none.

    The nearest is the one that differs in the fewest choices, the card being one of them; among
    equals, the one whose predicted bytes come nearest. Without a card, for the device that is here.
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
    """Return all recorded runs of ``data/measured``, those of others among them."""
    files = sorted(course_path("data/measured").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    ours = [_ours(line) for line in lines if "measured" in line]
    return (*ours, *(_published(line) for line in lines if "source" in line))


def _ours(line: dict[str, Any]) -> Record:
    """Return the record of a line that ``benchmarks/measure_grid.py`` wrote."""
    measured = MemoryBreakdown(**line["measured"] | {"source": "recorded"})
    return Record(
        FinetuneConfig(**line["config"] | {"dtype": line["dtype"]}),
        line["shape"],
        measured.allocated,
        measured.device,
        measured.date,
        "ftcourse",
        versions=measured.versions,
        breakdown=measured,
        tokens_per_second=line["tokens_per_second"],
    )


def _published(line: dict[str, Any]) -> Record:
    """Return the record of a run that others published, with what their lines leave unsaid."""
    by, file = re.match(r"github:[^/]+/(\w+)[^:]*:(.*)", line["source"]).groups()
    unsaid, facts = map(dict, _THEIRS[by])
    said = {f.name: line[f.name] for f in fields(FinetuneConfig) if f.name in line}
    unsaid |= {"upcast": by == "fitcheck" and line["method"] == "qlora"}
    if day := re.search(r"(\d{4})-?(\d\d)-?(\d\d)\.json$", file):
        facts |= {"date": "-".join(day.groups())}
    size = line["allocated_mib"] * 2**20 if "allocated_mib" in line else line["allocated_gb"] * 1e9
    return Record(FinetuneConfig(**unsaid | said), line["shape"], round(size), by=by, **facts)


def _differences(record: Record, config: FinetuneConfig, card: Card) -> dict[str, tuple[str, str]]:
    """Return what decides bytes and differs: name to what was recorded and what is asked for."""
    asked = replace(config, dtype=config.dtype_on(card))
    names = _ALWAYS + _ADAPTER * (config.method != "full") + _QUANTIZED * (config.method == "qlora")
    pairs = {
        name: (_say(getattr(record.config, name)), _say(getattr(asked, name))) for name in names
    }
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
