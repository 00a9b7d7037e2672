"""The panel of lesson 09: what one of several GPUs holds, what it sends, and what would fit."""

from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig, field_docs
from ftcourse.hardware import CARDS, GIB, Card
from ftcourse.memory import predict_memory, show_bytes
from ftcourse.memory.fit import judge_fit
from ftcourse.memory.sharding import LINKS, communication
from ftcourse.plots.scale import plot_cards
from ftcourse.scale import COUNTS, USED, cheapest_way, step_seconds
from ftcourse.shape.hub import named_shapes
from ftcourse.widgets.panel import Panel, Values

SHARDINGS = {"DDP: all on each": "ddp", "FSDP: a part on each": "fsdp"}
GROUPS = {
    "The GPUs": ("GPUs", "sharding", "card", "link"),
    "The run": ("model", "method", "texts", "length", "loss"),
}
WORDS = field_docs(FinetuneConfig) | {
    "GPUs": "How many GPUs train together, one process each.",
    "sharding": "Whether each GPU holds everything, or its part of everything.",
    "card": "The kind of GPU; all of them are alike.",
    "link": "The way between the GPUs, and what it carries in one direction.",
    "model": "Whose weights are trained.",
    "texts": "Texts that each GPU reads at once.",
    "length": "Tokens of each text.",
}


def scale_panel(model: str = "llama-3.1-8b", card: str = "A100 80GB", **start: Any) -> Panel:
    """Return the panel of several GPUs; ``start`` are values with which its controls begin."""
    menus: dict[str, list] = {
        "GPUs": [(f"{n} GPU{'s' * (n > 1)}", n) for n in COUNTS],
        "sharding": [*SHARDINGS.items()],
        "card": [(f"{name}, {c.memory / GIB:.1f} GiB", name) for name, c in CARDS.items()],
        "link": [(f"{n}, {each.bytes_per_second / 1e9:.4g} GB/s", n) for n, each in LINKS.items()],
        "model": [*dict.fromkeys([model, "embedded", *named_shapes()])],
        "method": ["full", "lora", "qlora"],
        "texts": [(f"{n} text{'s' * (n > 1)} a GPU", n) for n in (1, 2, 4, 8)],
        "length": [(f"{2**k} tokens", 2**k) for k in range(8, 17)],
        "loss": [("all logits at once", "full"), ("in chunks", "chunked")],
    }
    first = {"GPUs": 2, "sharding": "fsdp", "card": card, "link": "PCIe 4.0 x16", "model": model}
    first |= {"method": "full", "texts": 1, "length": 2048, "loss": "full"} | start
    controls: dict[str, ipywidgets.Widget] = {
        name: ipywidgets.Dropdown(options=menus[name], value=first[name], description=name)
        for names in GROUPS.values()
        for name in names
    }
    return Panel(draw, controls, "What if one GPU is not enough?", None, WORDS, change, GROUPS)


def read(values: Values) -> tuple[FinetuneConfig, Card]:
    """Return the run and the card that the controls' values are."""
    names = {"texts": "batch_size", "length": "max_length"}
    fields = {names.get(name, name): value for name, value in values.items()}
    known = ("model", "method", "batch_size", "max_length", "loss")
    return FinetuneConfig(**{name: fields[name] for name in known}), CARDS[values["card"]]


def draw(**values: Any) -> tuple[Axes | str, ...]:
    """Draw a bar for each number of GPUs; say whether the chosen one fits, and what it sends."""
    config, card = read(values)
    cards, sharding = values["GPUs"], values["sharding"]
    steps = {n: predict_memory(config, card, world_size=n, sharding=sharding) for n in COUNTS}
    fit = judge_fit(steps[cards], card)
    found = None if fit.answer == "yes" else cheapest_way(config, card, cards, sharding)
    cheaper = f"The first way that fits: {found.what}" if found else "No change here makes it fit"
    if found:
        cheaper += f", {found.step.allocated / GIB:.1f} GiB a GPU"
    lines = [str(fit), _traffic(config, card, values)]
    lines += [f"{cheaper}."] if fit.answer != "yes" else []
    return plot_cards(steps, card, cards), "\n".join(lines)


def _traffic(config: FinetuneConfig, card: Card, values: Values) -> str:
    """Return what each GPU sends in a step, and how long it computes meanwhile."""
    cards, link = values["GPUs"], LINKS[values["link"]]
    seconds = step_seconds(config, card, cards, values["sharding"], link)
    speed = f"(predicted, at {100 * USED:.0f} % of the speed in its data sheet)"
    computes = f"{_say(seconds.computing)} of computing {speed}"
    if cards == 1:
        return f"One GPU sends nothing, and has {computes} a step."
    sent = communication(config, cards, values["sharding"], card=card).bytes_per_step
    size = f"{sent / 1e9:,.2f} GB" if sent >= 1e9 else f"{sent / 1e6:,.1f} MB"
    over = f"{_say(seconds.sending)} over {values['link']}"
    return f"Each GPU sends {size} a step: {over}, beside {computes}."


def _say(seconds: float) -> str:
    """Return seconds with two digits that count, and without a power of ten."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def change(before: Values, after: Values) -> str:
    """Return what a move did to the bytes of one GPU."""
    sizes = []
    for values in (before, after):
        config, card = read(values)
        how = {"world_size": values["GPUs"], "sharding": values["sharding"]}
        sizes.append(predict_memory(config, card, **how).allocated)
    old, new = (show_bytes(size, like=max(sizes)) for size in sizes)
    return f"still {new} a GPU" if old == new else f"{new} a GPU instead of {old}"
