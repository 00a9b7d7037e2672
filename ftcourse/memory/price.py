"""What each change that makes a run smaller costs: bytes by arithmetic, time and quality in words.

Figures of the embedded model are read from recorded sweeps; those of others name their source.
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


@dataclass(frozen=True)
class Price:
    """One change of a run, what it saves, and what it costs."""

    change: dict[str, Any]
    """The fields of the config that it changes, and their new values."""
    saved: int
    """Predicted bytes at the peak before minus after; below 0 if the change needs more."""
    time: str
    """What it costs in time, in words."""
    quality: str
    """What it costs in quality, in words."""
    answer: Literal["yes", "narrowly", "no"]
    """Whether the run then fits, as ``Fit.answer``."""

    @property
    def name(self) -> str:
        """The change, as one writes it in a config."""
        return ", ".join(f"{name}={value!r}" for name, value in self.change.items())

    def __repr__(self) -> str:
        """Return the change, its bytes and the answer in a line, and the words below it."""
        words = [("time", self.time), ("quality", self.quality)]
        below = [wrap(f"    {n}: {text}", 79, subsequent_indent=8 * " ") for n, text in words]
        return "\n".join(
            [f"{self.name:<46}{show_bytes(self.saved):>13}  {self.answer:>8}", *chain(*below)]
        )


class Prices(tuple[Price, ...]):
    """Changes and their prices, the cheapest first. Its repr is a table of at most 80 columns."""

    def __repr__(self) -> str:
        """Return the table."""
        if not self:
            return "Nothing to pay for: it fits as it is, or no change makes it fit."
        return "\n".join([f"{'change':<46}{'saves':>13}  {'it fits':>8}", *map(repr, self)])


def prices(config: FinetuneConfig, card: Card | None = None) -> Prices:
    """Return the price of each change that may make a run smaller, made alone.

    They are the changes that ``cheapest_change`` tries, in its order: first those that cost only
    time, then those that may cost quality. Without a card, for the device that is there.
    """
    card = card or detect()
    return Prices(_price(config, change, card) for change in _changes(config))


def prices_to_fit(config: FinetuneConfig, card: Card | None = None) -> Prices:
    """Return what it costs to make a run fit: each of the cheapest changes, on top of the others.

    They are those of ``cheapest_change``, and their saved bytes add up to what it saves. Empty if
    the run fits, or if no change makes it fit.
    """
    card, found = card or detect(), []
    if judge_fit(predict_memory(config, card), card).answer == "yes":
        return Prices()
    target = vars(cheapest_change(config, card))
    for change in _changes(config):
        if all(target[name] == value for name, value in change.items()):
            found.append(_price(config, change, card))
            config = replace(config, **change)
    return Prices(found)


def _changes(config: FinetuneConfig) -> list[dict[str, Any]]:
    """Return the changes that change something."""
    return [c for c in smaller_changes(config) if any(vars(config)[n] != c[n] for n in c)]


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
        return (_LITGPT, _nf4()) if after.method == "qlora" else (work, _lora())
    if after.bits != before.bits:
        return "not known: neither is measured here", _nf4()
    if after.optimizer != before.optimizer:
        paper = "none, says the paper on 8-bit optimizers (arXiv 2110.02861)"
        return paper, f"{paper}; not measured here"
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


# Its tutorials/resource-tables.md of October 2023: with NF4 and double quantization 1.87 for 1.62
# minutes (phi-1.5), 6.55 for 3.19 (Llama 2 13B).
_LITGPT = (
    "weights are dequantized at each use: litgpt's LoRA on an A100 took 1.2 (1.3B) to 2.1 times "
    "(13B) as long"
)


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
    """Return what the recorded sweep of lesson 02 says of the quality of full and LoRA."""
    rows = []
    for method, rank in (("full", 0), ("lora", 16)):
        kept = {"method": method, "rank": rank, "targets": "all-linear"}
        voice = _mean("voice", task="voice", **kept)
        facts = 100 * _mean("recall_test", task="facts", **kept)
        rows.append(f"voice {voice:.0f} %, facts {facts:.0f} %")
    return f"recorded, embedded model, 3 seeds: full {rows[0]}; LoRA of rank 16 {rows[1]}"


def _mean(result: str, **settings: Any) -> float:
    """Return the mean over the seeds at the learning rate that was best with seed 0."""
    usual = [
        run for run in _sweep("lora") if "steps" not in run and settings.items() <= run.items()
    ]
    (rate,) = {run["learning_rate"] for run in usual if run["seed"] == 2}
    return fmean(run[result] for run in usual if run["learning_rate"] == rate)


def _nf4() -> str:
    """Return what the recorded sweep of lesson 01 says of a model in NF4 before training."""
    plain = next(run for run in _sweep("quantize") if run["scheme"] == "none")
    nf4 = {"scheme": "normal", "bits": 4, "block": 64, "part": "all"}
    run = next(run for run in _sweep("quantize") if nf4.items() <= run.items())
    return (
        f"before training the embedded model answers {run['right']} of {run['count']} with NF4, "
        f"{plain['right']} without (recorded); after training none, says the QLoRA paper (table 3)"
    )


def _sweep(name: str) -> list[dict[str, Any]]:
    lines = course_path(f"data/measured/sweep_{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]
