"""How long a text may be: for each model and method, on one card."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import Card, detect
from ftcourse.memory.fit import largest
from ftcourse.plots.picture import SMALL, finish, new_axes
from ftcourse.shape import load_shape

METHODS = ("full", "lora", "qlora")


def plot_longest(
    models: Sequence[str], card: Card | None = None, ax: Axes | None = None, **fields: Any
) -> Axes:
    """Draw how many tokens a text may have, for each model and method; ``fields`` are the run's.

    A step then fits the card as ``judge_fit`` says, with its margin, and a text is no longer than
    the model's positions: that is a full bar. Without a card, for the device that is there.
    """
    card = card or detect()
    ax = ax or new_axes(0.9 + 0.42 * len(models), left=1.6, right=0.1)
    ax.set(xlim=(-0.5, 2.5), ylim=(len(models) - 0.5, -0.5))
    found: dict[str, list[str]] = {method: [] for method in METHODS}
    for row, model in enumerate(models):
        positions = load_shape(model).max_position_embeddings
        for column, method in enumerate(METHODS):
            run = FinetuneConfig(model=model, method=method, **fields)
            length = min(_longest(run, card), positions or 2**30)
            all_of_them = " (all)" * (length == positions)
            text = f"{length:,}{all_of_them}" if length else "does not fit"
            share = length / positions if positions else length > 0
            ax.barh(row, 0.94, 0.8, column - 0.47, color="#E4E2DC")
            ax.barh(row, 0.94 * share, 0.8, column - 0.47, color="#A9BCCB")
            ax.text(column, row, text, ha="center", va="center", fontsize=SMALL)
            found[method] += [f"{model} {text}"] if length else []
    ax.set(xticks=range(3), xticklabels=METHODS, yticks=range(len(models)), yticklabels=models)
    ax.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
    xlabel = f"longest text on the {card!r}, tokens"
    words = (
        f"{m}: {len(f)} of {len(models)} fit, last {f[-1] if f else 'none'}"
        for m, f in found.items()
    )
    alt = f"{xlabel}. {'; '.join(words)}."
    return finish(ax, alt, hide=ax.spines, xlabel=xlabel)


def _longest(config: FinetuneConfig, card: Card) -> int:
    """Return the longest text in tokens; 0 if not even one token fits."""
    try:
        return largest(config, "max_length", card.memory, card)
    except CourseError:
        return 0
