"""How long a text may be: for each model and method, on one card."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import Card, detect
from ftcourse.memory.fit import largest
from ftcourse.plots.picture import SMALL, Picture, new_axes
from ftcourse.shape import load_shape

METHODS = ("full", "lora", "qlora")


def plot_longest(
    models: Sequence[str], card: Card | None = None, ax: Axes | None = None, **fields: object
) -> Axes:
    """Draw how many tokens a text may have, for each model and method; ``fields`` are the run's.

    A step then fits the card as ``judge_fit`` says, with its margin. A text is no longer than the
    model's positions. Without a card, for the device that is there.
    """
    card = card or detect()
    found = {model: {m: _longest(model, m, card, fields) for m in METHODS} for model in models}
    ax = ax or new_axes(0.9 + 0.42 * len(models), left=1.6, right=0.1, top=0.35)
    ax.set(xlim=(-0.5, 2.5), ylim=(len(models) - 0.5, -0.5))
    for row, (model, lengths) in enumerate(found.items()):
        positions = load_shape(model).max_position_embeddings
        for column, length in enumerate(lengths.values()):
            _draw_cell(ax, column, row, length, positions)
    ax.set_xticks(range(3), METHODS)
    ax.set_yticks(range(len(models)), models)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(f"longest text on the {card!r}, tokens")
    if isinstance(ax, Picture):
        ax.alt = _describe(found, card)
    return ax


def _longest(model: str, method: str, card: Card, fields: Mapping[str, object]) -> int:
    """Return the longest text in tokens, up to the model's positions; 0 if not even one fits."""
    config = FinetuneConfig(model=model, method=method, **fields)
    try:
        length = largest(config, "max_length", card.memory, card)
    except CourseError:
        return 0
    return min(length, load_shape(model).max_position_embeddings or length)


def _draw_cell(ax: Axes, column: int, row: int, length: int, positions: int | None) -> None:
    """Draw one cell: its number, and a bar that says how much of the model's positions it is."""
    text = f"{length:,}" if length else "does not fit"
    if length and length == positions:
        text += " (all)"
    share = length / positions if positions else float(length > 0)
    ax.barh(row, 0.94, 0.8, column - 0.47, color="#E4E2DC")
    ax.barh(row, 0.94 * share, 0.8, column - 0.47, color="#A9BCCB")
    ax.text(column, row, text, ha="center", va="center", fontsize=SMALL)


def _describe(found: Mapping[str, Mapping[str, int]], card: Card) -> str:
    rows = [
        f"{model}: "
        + ", ".join(f"{m} {n:,} tokens" if n else f"{m} does not fit" for m, n in lengths.items())
        for model, lengths in found.items()
    ]
    return f"Longest texts on the {card!r}. {'; '.join(rows)}."
