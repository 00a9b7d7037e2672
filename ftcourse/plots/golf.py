"""A picture of VRAM golf: every round's bytes against its loss."""

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes

from ftcourse.memory.breakdown import show_bytes
from ftcourse.plots.picture import SMALL, finish, new_axes, put_label
from ftcourse.sweeps import load_sweep, select

OURS, YOURS, LINES = "#8A8578", "#D55E00", "#0072B2"


def plot_golf(course: Any, rounds: Iterable[dict[str, Any]] = (), ax: Axes | None = None) -> Axes:
    """Draw the designers' recorded rounds on a course, and one's own, as ``scores().rounds``.

    A round counts in the lower left field: within the budget, and at the loss or below it.
    """
    ax = new_axes(3.6, left=0.9, right=0.4) if ax is None else ax
    theirs = select(load_sweep("golf"), course=course.name)
    mine = [each for each in rounds if each["course"] == course.name]
    for runs, color, size, name in (
        (theirs, OURS, 30, "designers"),
        (mine, YOURS, 90, "yours"),
    ):
        losses = [run.get("test_loss", run.get("loss")) for run in runs]
        peaks = [run["peak"] / 2**20 for run in runs]
        ax.scatter(peaks, losses, size, color, marker="o" if runs is theirs else "*", zorder=3)
        if runs:
            best = min(range(len(runs)), key=losses.__getitem__)
            put_label(ax, name, (peaks[best], losses[best]), (0, -13), color=color, size=SMALL)
    ax.set_yscale("log")
    ax.axhline(course.target, color=LINES, linewidth=1)
    ax.axvline(course.budget / 2**20, color=LINES, linewidth=1)
    ax.axvline(course.par / 2**20, color=LINES, linestyle=":", linewidth=1)
    style = {"color": LINES, "size": SMALL}
    top = ax.get_ylim()[1]
    put_label(ax, "budget", (course.budget / 2**20, top), (0, 3), **style)
    put_label(ax, "par", (course.par / 2**20, top), (0, 3), **style)
    put_label(ax, "loss to reach", (ax.get_xlim()[1], course.target), (0, 3), edge=0.5, **style)
    alt = (
        f"The {course.name}: {len(theirs)} rounds of the designers and {len(mine)} of yours. "
        f"Budget {show_bytes(course.budget)}, par {show_bytes(course.par)}, loss to reach "
        f"{course.target:.2f} nats."
    )
    return finish(ax, alt, xlabel="peak of the run, MiB", ylabel="test loss, nats")
