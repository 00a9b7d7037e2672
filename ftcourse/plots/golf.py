"""A picture of VRAM golf: every round's bytes against its loss."""

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ftcourse.memory.breakdown import show_bytes
from ftcourse.plots.picture import SMALL, finish, new_axes, put_label
from ftcourse.sweeps import load_sweep, select

THEIRS, YOURS, LINES, FIELD = "#77736A", "#D55E00", "#0072B2", "#DCEBE4"
LOSSES = (0.1, 0.2, 0.5, 1, 2, 5)  # the untrained model is near 6


def plot_golf(course: Any, rounds: Iterable[dict[str, Any]] = (), ax: Axes | None = None) -> Axes:
    """Draw the designers' recorded rounds on a course, and one's own, as ``scores().rounds``.

    A round counts in the lower field: within the budget, and at the loss to reach or below it.
    """
    ax = new_axes(3.8, left=0.7, top=0.6) if ax is None else ax
    theirs = select(load_sweep("golf"), course=course.name)
    mine = [each for each in rounds if each["course"] == course.name]
    budget, par = course.budget / 2**20, course.par / 2**20
    for runs, name, style in (
        (theirs, "the designers' rounds, recorded", {"s": 35, "color": THEIRS}),
        (mine, "your rounds", {"s": 110, "color": YOURS, "marker": "*"}),
    ):
        losses = [min(run.get("test_loss", run.get("loss")), 8) for run in runs]
        ax.scatter([run["peak"] / 2**20 for run in runs], losses, label=name, zorder=3, **style)
    ends = [par, budget, *(run["peak"] / 2**20 for run in [*theirs, *mine])]
    room = 0.06 * (max(ends) - min(ends))
    ax.set(yscale="log", ylim=(0.08, 9), yticks=LOSSES, xlim=(min(ends) - room, max(ends) + room))
    ax.set_yticklabels(map(str, LOSSES))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.fill_between([min(ends) - room, budget], 0.08, course.target, color=FIELD, zorder=0)
    for x, text, line in ((par, "par", ":"), (budget, "budget", "-")):
        ax.axvline(x, color=LINES, linestyle=line, linewidth=1)
        put_label(ax, text, (x, 9), (0, 3), color=LINES, size=SMALL)
    ax.axhline(course.target, color=LINES, linewidth=1)
    place = (max(ends) + room, course.target)
    put_label(ax, "loss to reach", place, (0, 3), edge=0.5, color=LINES, size=SMALL)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1.05), ncols=2, frameon=False, fontsize=SMALL)
    counted = [
        run["peak"]
        for run in mine
        if run["peak"] <= course.budget and run.get("test_loss", run.get("loss")) <= course.target
    ]
    best = f", the best with {show_bytes(min(counted))}" if counted else ""
    alt = (
        f"The {course.name}: {len(theirs)} rounds of the designers and {len(mine)} of yours, of "
        f"which {len(counted)} count{best}. "
        f"Budget {show_bytes(course.budget)}, par {show_bytes(course.par)}, loss to reach "
        f"{course.target:.2f} nats."
    )
    return finish(ax, alt, xlabel="peak of the run, MiB", ylabel="test loss, nats")
