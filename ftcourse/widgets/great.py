"""The panel with every choice that decides bytes, and what it costs to make a run fit."""

from dataclasses import replace
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import Card
from ftcourse.memory import predict_memory, show_bytes
from ftcourse.memory.fit import judge_fit
from ftcourse.memory.price import Price, prices_to_fit
from ftcourse.widgets.memory import Added, build_panel, measure, simulate
from ftcourse.widgets.panel import Panel

GROUPS = {
    "the run": ("model", "card", "method"),
    "the adapter": ("rank", "target_modules", "adapter_dtype"),
    "the base in few bits": ("bits", "quant_type", "double_quant", "upcast"),
    "the step": (
        "batch_size",
        "gradient_accumulation_steps",
        "max_length",
        "gradient_checkpointing",
        "loss",
        "attention",
        "dtype",
        "optimizer",
    ),
}
LABELS = {"gradient_accumulation_steps": "accumulate (batches)", "target_modules": "modules"}
LABELS |= {"gradient_checkpointing": "checkpointing", "adapter_dtype": "its dtype"}
LABELS |= {"double_quant": "double quantization"}
FIT = "make it fit"
CHANGED = "with the changes"
"""The source of the bar that the button adds."""


def great_panel(model: str = "llama-3.1-8b", card: str | Card = "T4", **start: Any) -> Panel:
    """Return the memory panel with every field of a run that decides bytes.

    ``card`` is as in ``memory_panel``; ``start`` are fields of the run with which it begins.
    Its buttons are here, too, and one more: it finds the cheapest change that makes the run fit,
    draws its bar beside the first, and says below the picture what each change saves, and what it
    costs in time and in quality. No control moves.
    """
    verbs = {"simulate": simulate, "measure": measure, FIT: make_it_fit}
    panel = build_panel(model, card, "What would make it fit?", GROUPS, verbs, **start)
    for name, label in LABELS.items():
        panel.controls[name].description = label
    return panel


def make_it_fit(config: FinetuneConfig, card: Card) -> Added:
    """Return the bar of the cheapest change that fits, its name, and the price of each change."""
    bill = prices_to_fit(config, card)
    if not bill:
        fits = judge_fit(predict_memory(config, card), card).answer == "yes"
        nothing = (
            "it fits as it is."
            if fits
            else "no change does. A smaller model or a larger card would."
        )
        return None, f"{FIT}: {nothing}"
    for price in bill:
        config = replace(config, **price.change)
    changed = predict_memory(config, card)
    text = f"{FIT}: {', '.join(price.name for price in bill)}. {judge_fit(changed, card).summary}."
    return replace(changed, source=CHANGED), text, *map(sentence, bill)


def sentence(price: Price) -> str:
    """Return a price in words."""
    size = show_bytes(abs(price.saved))
    saved = f"saves {size}" if price.saved >= 0 else f"takes {size} more"
    return f"{price.name} {saved}. Time: {price.time}. Quality: {price.quality}."
