"""How a run goes: its losses, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from ftcourse.plots.picture import INK_OF_LOSS, draw_marks, finish, new_axes


def plot_history(
    history: Sequence[Mapping[str, Any]],
    ax: Axes | None = None,
    mark: Mapping[int, str] | None = None,
) -> Axes:
    """Draw the training loss of each logged step, and the held-out loss where it was measured.

    Points and lines are as logged; nothing is smoothed. Where the losses fall to less than a tenth,
    the axis is logarithmic, so that the end can be seen too. ``mark`` names steps.
    """
    mark = mark or {}
    ax = ax or new_axes(2.6 + 0.2 * len(mark), left=0.7, right=1.4, top=0.2 + 0.2 * len(mark))
    losses = {
        name: [(entry["step"], entry[key]) for entry in history if key in entry]
        for name, key in (("training", "loss"), ("held out", "eval_loss"))
    }
    values = [loss for points in losses.values() for _, loss in points]
    if values and max(values) > 10 * min(values) > 0:
        ax.set_yscale("log")
        ax.margins(y=0.15)  # room for the names at the ends
        ax.yaxis.set_major_formatter("{x:g}")  # 0.1 rather than a power of ten
        ax.yaxis.set_minor_formatter("")
    else:
        ax.set_ylim(0, 1.1 * max(values, default=1))
    last = {name: points[-1] for name, points in losses.items() if points}
    highest = max(last, key=lambda name: last[name][1], default=None)
    for name, end in last.items():
        ax.plot(*zip(*losses[name], strict=True), ".-", color=INK_OF_LOSS[name], linewidth=1)
        text, va = f" {name} {end[1]:.2f}", "bottom" if name == highest else "top"
        ax.annotate(text, end, color=INK_OF_LOSS[name], va=va, annotation_clip=False)
    draw_marks(ax, [(step, f"step {step}: {text}") for step, text in mark.items()])
    words = [_story(name, points) for name, points in losses.items()]
    words += [f"Step {step} is marked: {text}." for step, text in mark.items()]
    return finish(ax, " ".join(words), xlabel="step", ylabel="loss")


def _story(name: str, points: Sequence[tuple[int, float]]) -> str:
    if not points:
        return f"No {name} loss."
    (first, high), (last, low) = points[0], points[-1]
    best, step = min((loss, step) for step, loss in points)
    lowest = f", lowest, {best:.2f}, at step {step}" if step != last else ""
    return f"The {name} loss is {high:.2f} at step {first} and {low:.2f} at step {last}{lowest}."
