"""The panel of lesson 06: what a mixture of training rows teaches, and what it takes away."""

from collections.abc import Mapping
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.effects import KINDS, ROWS, UNTUNED, effects, general_loss, mixtures
from ftcourse.plots.finetune import plot_effects
from ftcourse.sweeps import Mean, Run
from ftcourse.widgets.panel import Panel, Values

WORDS = {
    "mixture": "Of which kinds the twelve rows of a training step are.",
    "beside": "Another mixture, to compare with.",
    "rows": "Which answers are judged: validation rows choose, test rows tell.",
}


def finetune_panel() -> Panel:
    """Return a panel that begins with letters alone, beside the model before."""
    options = [*mixtures()]
    menus = {"mixture": options, "beside": options, "rows": [*ROWS]}
    start = {"mixture": options[0], "beside": UNTUNED}
    controls: dict[str, ipywidgets.Widget] = {
        name: ipywidgets.Dropdown(
            options=choices, value=start.get(name, choices[0]), description=name
        )
        for name, choices in menus.items()
    }
    return Panel(_draw, controls, "What does the mixture keep?", words=WORDS, change=_change)


def _draw(mixture: str, beside: str, rows: str) -> tuple[Axes | str, ...]:
    runs = mixtures()
    chosen = dict.fromkeys((beside, mixture))
    found = {name: effects(runs[name], rows) for name in chosen}
    picture = plot_effects(found, f"share of answers, %; rows: {rows}")
    return picture, "\n".join([_summary(found[mixture]), _say_loss(runs, mixture, rows)])


def _summary(found: Mapping[str, Mean]) -> str:
    shares = (f"{words} {100 * mean.mean:.0f} %" for words, mean in found.items())
    return "; ".join(shares) + "."


def _say_loss(runs: Mapping[str, list[Run]], mixture: str, rows: str) -> str:
    """Return what the mixture did to the loss of general text, recorded."""
    loss, base = (general_loss(runs[name], rows).mean for name in (mixture, UNTUNED))
    run, seeds = runs[mixture][0], len(runs[mixture])
    size = f"{run['steps']} steps of {sum(run[kind] for kind in KINDS)} rows"
    recorded = f"Recorded: rank 16, {size}, {seeds} seeds." if mixture != UNTUNED else "Recorded."
    return f"Loss of general text: {loss:.2f} nats, {loss / base - 1:+.0%}. {recorded}"


def _change(before: Values, after: Values) -> str:
    """Return what a move did to the answers about pages that are right and in voice."""
    runs = mixtures()
    shares: list[Any] = [
        100 * effects(runs[each["mixture"]], each["rows"])["pages: both"].mean
        for each in (before, after)
    ]
    moved = before["beside"] == after["beside"]
    return f"right and in voice about pages: {shares[0]:.0f} to {shares[1]:.0f} %" if moved else ""
