"""Recorded runs on two cards and more, each with the bytes that the arithmetic gives for it."""

import json
from dataclasses import dataclass
from functools import cache

from ftcourse.config import FinetuneConfig
from ftcourse.files import course_path
from ftcourse.hardware import CARDS, GIB, Card
from ftcourse.memory.breakdown import MemoryBreakdown
from ftcourse.memory.peak import predict_step
from ftcourse.memory.step import Step
from ftcourse.memory.units import Ranks
from ftcourse.shape import ModelShape

_FILE = "data/measured/published_two_cards.jsonl"


@dataclass(frozen=True)
class RanksRecord:
    """A run on several cards that somebody recorded."""

    model: str
    method: str
    sharding: str
    """``ddp``, or ``fsdp`` with its first version."""
    card: str
    cards: int
    batch_size: int
    """Texts a step on each card."""
    max_length: int
    offload: bool
    """Whether weights waited in main memory; the arithmetic does not know that."""
    peak_gib: float | None
    """What PyTorch's allocator had reserved on a card at most, where it is known."""
    peak_is: str | None
    allocated_gib: float | None
    """What lived on a card at most, where it is known."""
    seconds: int
    rows: int
    """Texts in so many seconds, on all cards together."""
    card_gib: float
    """The memory of a card as its maker gives it."""
    shape: dict
    by: str
    source: str
    date: str

    @property
    def config(self) -> FinetuneConfig:
        """The run's choices, as far as they decide bytes: those of fsdp_qlora's ``train.py``."""
        return FinetuneConfig(
            model=self.model,
            method=self.method,
            rank=64,
            target_modules=("k_proj", "q_proj", "v_proj", "up_proj", "down_proj", "gate_proj"),
            dtype="bfloat16",
            adapter_dtype="bfloat16",
            optimizer="adamw_torch",
            batch_size=self.batch_size,
            max_length=self.max_length,
        )

    @property
    def predicted(self) -> MemoryBreakdown:
        """One card's bytes by our arithmetic, without offloading and in the Trainer's loop."""
        card = Card(self.card, round(self.card_gib * GIB), CARDS["A100 40GB"].capability)
        step = Step(self.config, ModelShape.from_config(self.shape), card, autocast=False)
        return predict_step(step, Ranks(self.cards, self.sharding))


@cache
def two_cards() -> list[RanksRecord]:
    """Return the recorded runs on several cards, in the order of their source."""
    lines = course_path(_FILE).read_text(encoding="utf-8").splitlines()
    return [RanksRecord(**json.loads(line)) for line in lines]
