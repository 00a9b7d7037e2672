"""How a run goes: its losses, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from ftcourse.plots.picture import INK_OF_LOSS, Picture, new_axes


def plot_history(history: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the training loss of each logged step, and the held-out loss where it was measured.

    Points and lines are as logged; nothing is smoothed.
    """
    ax = ax or new_axes(2.6, left=0.7, right=1.3)
    losses = {
        name: [(entry["step"], entry[key]) for entry in history if key in entry]
        for name, key in (("training", "loss"), ("held out", "eval_loss"))
    }
    last = {name: points[-1] for name, points in losses.items() if points}
    highest = max(last, key=lambda name: last[name][1], default=None)
    for name, end in last.items():
        ax.plot(*zip(*losses[name], strict=True), ".-", color=INK_OF_LOSS[name], linewidth=1)
        text, va = f" {name} {end[1]:.2f}", "bottom" if name == highest else "top"
        ax.annotate(text, end, color=INK_OF_LOSS[name], va=va, annotation_clip=False)
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    if isinstance(ax, Picture):
        ax.alt = " ".join(_story(name, points) for name, points in losses.items())
    return ax


def _story(name: str, points: Sequence[tuple[int, float]]) -> str:
    if not points:
        return f"No {name} loss."
    (first, high), (last, low) = points[0], points[-1]
    return f"The {name} loss is {high:.2f} at step {first} and {low:.2f} at step {last}."
