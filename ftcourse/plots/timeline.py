"""How the bytes of one step come and go."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ftcourse.errors import CourseError
from ftcourse.memory import PARTS, show_bytes
from ftcourse.plots.parts import draw_stack, say_parts
from ftcourse.plots.picture import finish, new_axes, put_label, unit_of

_COLUMNS = 600  # fewer than the pixels of the picture, so that a peak of one event still shows


def plot_timeline(timeline: Sequence[Mapping[str, int]], ax: Axes | None = None) -> Axes:
    """Draw the live bytes of one step, part upon part, after each event; the peak is marked.

    ``MemoryMeter.timeline`` holds them. An event is a tensor that comes or goes, so the axis is an
    order, not a clock. Of many, we draw the fullest of each stretch, so that the peak stays.
    """
    events, live = _thin(_read(timeline))
    total = live.sum(axis=1)
    (unit, unit_name), peak = unit_of(total.max()), int(total.argmax())
    marks = _marks(events, live)
    ax = ax or new_axes(3.4, left=0.7, right=0.25, top=0.35 + 0.2 * len(marks))
    ax.set(xlim=(0, events[-1]), ylim=(0, 1.2 * total.max() / unit))
    x = np.repeat(events, 2)[1:-1]  # each moment lasts until the next: a stair
    draw_stack(ax, x, np.repeat(live, 2, axis=0).T / unit, marks)
    top = (events[peak], total[peak] / unit)
    ax.plot(*top, "o", color="black", markersize=4)
    label = f"peak {show_bytes(total[peak])}"
    put_label(ax, label, top, (0, 5), edge=0.2, va="bottom", fontweight="bold")
    ax.locator_params(axis="x", integer=True)
    parts = say_parts(dict(zip(PARTS, live[peak], strict=True)))
    where = f"At the peak, after {peak / len(live):.0%} of the events"
    alt = f"The live bytes of one step. {where}: {parts}."
    xlabel = "events of one step: a tensor comes or goes"
    return finish(ax, alt, xlabel=xlabel, ylabel=f"live, {unit_name}")


def _read(timeline: Sequence[Mapping[str, int]]) -> NDArray:
    """Return the bytes, shape (events, parts), from the event before the first activation on."""
    if not timeline:
        raise CourseError(
            "plot_timeline draws the timeline of a step that was measured.",
            "an empty one",
            "Give MemoryMeter to finetune as a callback, with max_steps of 2 or more.",
        )
    live = np.array([[moment[part] for part in PARTS] for moment in timeline])
    first = live[:, PARTS.index("activations")].astype(bool).argmax()  # 0 if there is none
    return live[max(0, first - 1) :]  # before, the meter only counts what lived already


def _thin(live: NDArray) -> tuple[NDArray, NDArray]:
    """Return the live bytes of each stretch of events at its fullest, and the stretches' ends."""
    total, count = live.sum(axis=1), len(live)
    ends = np.linspace(0, count, min(count, _COLUMNS) + 1).astype(int)
    fullest = [start + total[start:end].argmax() for start, end in pairwise(ends)]
    return ends, live[fullest]


def _marks(events: NDArray, live: NDArray) -> list[tuple[int, str]]:
    """Return the events of the first gradient and of the last, with which backward passes end."""
    grows = np.flatnonzero(np.diff(live[:, PARTS.index("gradients")]) > 0) + 1
    ends = {"first gradient": grows[:1], "last gradient": grows[-1:]}
    return [(events[index[0]], name) for name, index in ends.items() if len(index)]
