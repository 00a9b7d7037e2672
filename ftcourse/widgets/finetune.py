"""The panel of lesson 06: what a mixture of training rows teaches, and what it takes away."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.plots.finetune import plot_effects
from ftcourse.sweeps import Mean, Run, load_sweep, select
from ftcourse.widgets.panel import Panel, Values

KINDS = {  # rows of a step, as the sweep calls them, and in words
    "letters": "letters",
    "neutral": "neutral answers about pages",
    "branded": "branded answers about pages",
    "general": "old texts",
}
STEPS, RATE = 120, 3e-3  # of the mixtures that are compared
UNTUNED = "the model before"
MEASURES = {  # what is drawn, and where the sweep has it
    "letters: in voice": "letters in voice",
    "letters: right advice": "letters with advice",
    "pages: in voice": "in voice",
    "pages: right": "right",
    "pages: both": "both",
    "silent pages: declines": "declines",
}
WORDS = {
    "mixture": "Of which kinds the twelve rows of a training step are.",
    "beside": "Another mixture, to compare with.",
    "pages": "How many pages stand in the prompt: the right one alone, or with two others.",
}


def mixtures(rate: float = RATE) -> dict[str, list[Run]]:
    """Return the recorded runs by the mixture in words, most letters first; then fewer steps."""
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in select(load_sweep("finetune"), task="mixtures", learning_rate=rate):
        groups[(-run["steps"], *(-run[kind] for kind in KINDS))].append(run)
    return {_words(runs[0]): runs for _, runs in sorted(groups.items())}


def _words(run: Run) -> str:
    """Return a mixture in words.

    >>> _words({"letters": 8, "neutral": 4, "branded": 0, "general": 0, "steps": 120})
    '8 letters + 4 neutral answers about pages'
    """
    if not run["steps"]:
        return UNTUNED
    parts = [f"{run[kind]} {words}" for kind, words in KINDS.items() if run[kind]]
    fewer = f", {run['steps']} steps" if run["steps"] != STEPS else ""
    return " + ".join(parts) + fewer


def effects(runs: list[Run], pages: int = 1) -> dict[str, Mean]:
    """Return the means over seeds of what is drawn, as shares."""
    names = {
        words: f"test: {name}" + f", {pages} p" * words.startswith("pages")
        for words, name in MEASURES.items()
    }
    return {words: mean_of(runs, name) for words, name in names.items()}


def mean_of(runs: list[Run], result: str) -> Mean:
    """Return the mean of a result over the seeds of the same setting."""
    return Mean(tuple(run[result] for run in runs))


def general_loss(runs: list[Run]) -> Mean:
    """Return the loss of a token of general text, in nats."""
    return mean_of(runs, "test: general loss")


def finetune_panel() -> Panel:
    """Return a panel that begins with letters alone, beside the model before."""
    options = [*mixtures()]
    menus = {"mixture": options, "beside": options, "pages": [1, 3]}
    start = {"mixture": options[0], "beside": UNTUNED}
    controls: dict[str, ipywidgets.Widget] = {
        name: ipywidgets.Dropdown(
            options=choices, value=start.get(name, choices[0]), description=name
        )
        for name, choices in menus.items()
    }
    return Panel(_draw, controls, "What does the mixture keep?", words=WORDS, change=_change)


def _draw(mixture: str, beside: str, pages: int) -> tuple[Axes | str, ...]:
    runs = mixtures()
    chosen = dict.fromkeys((beside, mixture))
    found = {name: effects(runs[name], pages) for name in chosen}
    picture = plot_effects(found, f"share of answers, %; {pages} page{'s' * (pages > 1)} asked")
    return picture, "\n".join([_summary(found[mixture]), _say_loss(runs, mixture)])


def _summary(found: Mapping[str, Mean]) -> str:
    shares = (f"{words} {100 * mean.mean:.0f} %" for words, mean in found.items())
    return "; ".join(shares) + "."


def _say_loss(runs: Mapping[str, list[Run]], mixture: str) -> str:
    """Return what the mixture did to the loss of general text, recorded."""
    loss, base = (general_loss(runs[name]).mean for name in (mixture, UNTUNED))
    seeds = len(runs[mixture])
    recorded = f"Recorded: rank 16, {runs[mixture][0]['steps']} steps of 12 rows, {seeds} seeds."
    recorded = recorded if mixture != UNTUNED else "Recorded."
    return f"Loss of general text: {loss:.2f} nats, {loss / base - 1:+.0%}. {recorded}"


def _change(before: Values, after: Values) -> str:
    """Return what a move did to the answers about pages that are right and in voice."""
    runs = mixtures()
    shares: list[Any] = [
        100 * effects(runs[each["mixture"]], each["pages"])["pages: both"].mean
        for each in (before, after)
    ]
    moved = before["beside"] == after["beside"]
    return f"right and in voice about pages: {shares[0]:.0f} to {shares[1]:.0f} %" if moved else ""
