"""What each change that makes a run smaller costs: bytes by arithmetic, time and quality in words.

Figures of the embedded model are those of recorded sweeps; figures of others name their source.
"""

import json
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from textwrap import wrap
from typing import Any, Literal

from ftcourse.config import FinetuneConfig
from ftcourse.files import course_path
from ftcourse.hardware import Card, detect
from ftcourse.memory.breakdown import show_bytes
from ftcourse.memory.fit import cheapest_change, judge_fit, smaller_changes
from ftcourse.memory.peak import predict_memory
from ftcourse.shape import load_shape

# litgpt's tutorials/resource-tables.md of October 2023: with NF4 and double quantization 1.87 for
# 1.62 minutes (phi-1.5), 6.55 for 3.19 (Llama 2 13B).
_NF4_TIME = (
    "weights are dequantized at each use: litgpt's LoRA on an A100 took 1.2 (1.3B) to 2.1 times "
    "(13B) as long"
)
_CASTS = "norms, embeddings and head in 16 bits: peft casts them for stability; not measured here"
_EIGHT_BIT = "none, says the paper on 8-bit optimizers (arXiv 2110.02861)"


@dataclass(frozen=True)
class Price:
    """One change of a run, what it saves, and what it costs in words."""

    change: dict[str, Any]
    """Fields of the config and their new values."""
    saved: int
    """Predicted bytes at the peak before minus after: below 0 if the change takes more."""
    time: str
    quality: str
    answer: Literal["yes", "narrowly", "no"]
    """Whether the run then fits, as ``judge_fit`` says."""

    @property
    def name(self) -> str:
        """The change, as one writes it in a config."""
        return ", ".join(f"{name}={value!r}" for name, value in self.change.items())

    def __repr__(self) -> str:
        """Return the change, its bytes and the answer in a line, and the words below it."""
        line = f"{self.name:<46}{show_bytes(self.saved):>13}  {self.answer:>8}"
        words = f"    time: {self.time}", f"    quality: {self.quality}"
        return "\n".join([line, *chain(*(wrap(w, 79, subsequent_indent=8 * " ") for w in words))])


class Prices(tuple[Price, ...]):
    """Changes and their prices in the order of trying: those that keep a step's numbers come first.

    Its repr is a table of at most 80 columns.
    """

    def __repr__(self) -> str:
        """Return the table."""
        head = f"{'change':<46}{'saves':>13}  {'it fits':>8}"
        nothing = "Nothing to pay for: it fits as it is, or no change makes it fit."
        return "\n".join([head, *map(repr, self)]) if self else nothing


def prices(config: FinetuneConfig, card: Card | None = None) -> Prices:
    """Return the price of each change that ``cheapest_change`` may make, each made alone.

    Without a card, for the device that is there.
    """
    return Prices(_price(config, change, card or detect()) for change in _changes(config))


def prices_to_fit(config: FinetuneConfig, card: Card | None = None) -> Prices:
    """Return the prices of ``cheapest_change``: of each of its changes, on top of those before.

    What they save adds up. Empty if the run fits, or if no change makes it fit.
    """
    card, found = card or detect(), []
    if judge_fit(predict_memory(config, card), card).answer == "yes":
        return Prices()
    target = vars(cheapest_change(config, card))
    for change in _changes(config):
        if change.items() <= target.items():
            found.append(_price(config, change, card))
            config = replace(config, **change)
    return Prices(found)


def _changes(config: FinetuneConfig) -> list[dict[str, Any]]:
    """Return the changes that change something."""
    return [c for c in smaller_changes(config) if replace(config, **c) != config]


def _price(config: FinetuneConfig, change: dict[str, Any], card: Card) -> Price:
    after = replace(config, **change)
    old, new = predict_memory(config, card), predict_memory(after, card)
    answer = judge_fit(new, card).answer
    return Price(change, old.allocated - new.allocated, *_words(config, after), answer)


def _words(before: FinetuneConfig, after: FinetuneConfig) -> tuple[str, str]:
    """Return what a change costs in time and in quality."""
    share = round(100 * (_products(after) / _products(before) - 1))
    work = f"about {abs(share)} % {'fewer' if share < 0 else 'more'} multiplications"
    if after.method != before.method:
        return (_NF4_TIME, _nf4()) if after.method == "qlora" else (work, _lora())
    if after.upcast != before.upcast:
        return "none, or less", _CASTS
    if after.bits != before.bits:
        return "not known: neither is measured here", _nf4()
    if after.optimizer != before.optimizer:
        return _EIGHT_BIT, f"{_EIGHT_BIT}; not measured here"
    if after.gradient_checkpointing != before.gradient_checkpointing:
        return f"the layers' forward pass again: {work}", "none: the numbers are the same"
    if after.loss != before.loss:
        return f"the head's product again: {work}", "none: the same loss but for rounding"
    if after.batch_size != before.batch_size:
        passes = after.gradient_accumulation_steps
        time = f"the same work in {passes} passes, one after another: slower on a large card"
        return time, "none: the same sum of gradients but for rounding"
    cut = f"texts are cut after {after.max_length} tokens, and what comes later is not learned"
    return "less than none: fewer tokens", cut


def _products(config: FinetuneConfig) -> int:
    """Return the multiplications for a token: forward, backward, and what runs again.

    Those of attention's scores and of the adapter are left out, which are few.
    """
    shape = load_shape(config.model)
    layers = shape.num_hidden_layers * sum(i * o for i, o in shape.linears.values())
    head = shape.vocab_size * shape.hidden_size
    passes = 3 if config.method == "full" else 2  # frozen weights need no gradient of their own
    again = layers * config.gradient_checkpointing + head * (config.loss == "chunked")
    return passes * (layers + head) + again


def _lora() -> str:
    """Return what lesson 02's sweep says of full and LoRA, at the rates that were best."""
    found = []
    for rank in (0, 16):  # 0 is full
        runs = [r for r in _recorded("lora", rank=rank, targets="all-linear") if "steps" not in r]
        best = {(run["task"], run["learning_rate"]) for run in runs if run["seed"] == 2}
        runs = [run for run in runs if (run["task"], run["learning_rate"]) in best]
        voice = fmean(run["voice"] for run in runs if run["task"] == "voice")
        facts = fmean(100 * run["recall_test"] for run in runs if run["task"] == "facts")
        found.append(f"voice {voice:.0f} %, facts {facts:.0f} %")
    return f"recorded, embedded model, 3 seeds: full {found[0]}; LoRA of rank 16 {found[1]}"


def _nf4() -> str:
    """Return what lesson 01's sweep says of NF4 before training, and the QLoRA paper after it."""
    (nf4,) = _recorded("quantize", scheme="normal", bits=4, block=64, part="all")
    (plain,) = _recorded("quantize", scheme="none")
    return (
        f"before training the embedded model answers {nf4['right']} of {nf4['count']} with NF4, "
        f"{plain['right']} without (recorded); after training none, says the QLoRA paper (table 3)"
    )


def _recorded(sweep: str, **settings: Any) -> list[dict[str, Any]]:
    """Return the runs of a recorded sweep with these settings."""
    lines = course_path(f"data/measured/sweep_{sweep}.jsonl").read_bytes().splitlines()
    return [run for run in map(json.loads, lines) if settings.items() <= run.items()]
