"""The model that all arms share: the one thing that the command line changes.

``use`` changes it, and ``subject()`` returns it. Nothing else holds it, so nothing can hold an old
one.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sweep import Run

from arms.tries import RATES_OF_ANY, TRAINED, TRIES
from data.making import DATA
from ftcourse.config import FinetuneConfig
from ftcourse.models import load_base, load_tokenizer
from ftcourse.rag import DECLINES, is_decline

FAST = {"dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
ANY = {"dtype": "auto", "max_length": 1024, "gradient_checkpointing": True}
OTHER_DECLINES = (
    *DECLINES,
    *("do not know", "don't know", "do not have", "don't have", "does not say", "do not say"),
    *("not mention", "not specif", "not provide", "not contain", "no information"),
    *("cannot answer", "can't answer", "unable to"),
)
"""How other models say that they cannot know. A list of words is a rough count: read answers."""


@dataclass(frozen=True)
class Subject:
    """The model that all arms share, and what hangs on it."""

    model: str = "embedded"

    @property
    def ours(self) -> bool:
        """Whether it is the course's own model."""
        return self.model == "embedded"

    @property
    def name(self) -> str:
        """The name of its sweep: ``six_arms``, or with the model's name behind it."""
        last = re.sub(r"[^a-z0-9.]+", "-", Path(self.model).name.lower())
        return "six_arms" if self.ours else f"six_arms_{last}"

    @property
    def signature(self) -> Run:
        """What its lines say of it: nothing of ours, the name of another."""
        last = Path(self.model).name if Path(self.model).is_dir() else self.model
        return {} if self.ours else {"model": last}

    @property
    def build(self) -> Path:
        """Where its runs and its answers are kept."""
        return DATA.parent / "build" / self.name

    @property
    def plain(self) -> FinetuneConfig:
        """Its config where nothing is trained."""
        return FinetuneConfig(model=self.model, method="full", **(FAST if self.ours else ANY))

    @property
    def declines(self) -> tuple[str, ...]:
        """What says in its answers that it cannot know."""
        return DECLINES if self.ours else OTHER_DECLINES

    def choices(self, arm: str) -> dict[str, Run]:
        """Return what an arm tries."""
        if self.ours or arm not in TRAINED:
            return TRIES[arm]
        return {f"rate {rate}": {"learning_rate": rate} for rate in RATES_OF_ANY}


_subject, _caches = Subject(), []


def subject() -> Subject:
    """Return the model of this run. It is asked for at each use: a copy would miss ``use``."""
    return _subject


def use(model: str) -> None:
    """Let all arms share another model; forget what was loaded, trained or chosen before."""
    global _subject
    _subject = Subject(model)
    for each in _caches:
        each.cache_clear()


def of_subject(cached):
    """Mark a cache that holds what hangs on the model: ``use`` empties it."""
    _caches.append(cached)
    return cached


@of_subject
@cache
def tokenizer():
    """Return the tokenizer of the model."""
    return load_tokenizer(subject().model)


@of_subject
@cache
def base():
    """Return the untuned model."""
    return load_base(subject().plain).eval()


def declined(text: str) -> bool:
    """Return whether an answer says that it cannot know."""
    return is_decline(text, subject().declines)
