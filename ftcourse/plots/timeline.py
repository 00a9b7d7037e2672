"""How the bytes of one step come and go: its parts, or several steps as lines."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ftcourse.errors import CourseError
from ftcourse.memory import PARTS, show_bytes
from ftcourse.plots.parts import draw_stack, say_parts
from ftcourse.plots.picture import (
    ROW,
    SMALL,
    Marks,
    draw_marks,
    finish,
    new_axes,
    put_label,
    unit_of,
)

_COLUMNS = 600  # fewer than the pixels of the picture, so that a peak of one event still shows


# Wide, dashed, thin: all show where they lie on each other, also without colour. No part has
# these colours.
_LINES = (
    {"color": "#4A90C2", "linewidth": 6},
    {"color": "#A04080", "linewidth": 3, "linestyle": (0, (3, 3))},
    {"color": "black", "linewidth": 0.7},
)

Timeline = Sequence[Mapping[str, int]]
"""The live bytes of each part after each event of a step."""


def plot_timeline(timeline: Timeline | Mapping[str, Timeline], ax: Axes | None = None) -> Axes:
    """Draw the live bytes of one step, part upon part, after each event; the peak is marked.

    ``predict_timeline``, ``simulate_timeline``, ``measure_timeline`` and ``MemoryMeter.timeline``
    give them. An event is a tensor that comes or goes, so the axis is an order, not a clock. Of
    many, we draw the fullest of each stretch, so that the peak stays.

    Two or three timelines with names are lines, each the sum of the parts. They have different
    numbers of events, so the axis is the share of all bytes that came or went until then; the first
    and the last gradient of each line lie where those of the first line are.
    """
    if isinstance(timeline, Mapping):
        return _plot_lines(timeline, ax)
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


def _plot_lines(timelines: Mapping[str, Timeline], ax: Axes | None) -> Axes:
    """Draw the sum of the parts of each timeline as a line, the same phases over each other."""
    if not 0 < len(timelines) <= len(_LINES):
        must, do = "plot_timeline draws one timeline, or up to three with names.", "Draw fewer."
        raise CourseError(must, f"{len(timelines)} with names", do)
    lives = {name: _read(timeline) for name, timeline in timelines.items()}
    shares, marks = _place_over(lives)
    highest = max(live.sum(axis=1).max() for live in lives.values())
    unit, unit_name = unit_of(highest)
    ax = ax or new_axes(4, left=0.7, right=0.25, top=0.4 + 0.2 * len(marks))
    ax.set(xlim=(0, 100), ylim=(0, 1.2 * highest / unit))
    tops = {}
    for (name, live), share, style in zip(lives.items(), shares, _LINES, strict=False):
        total = live.sum(axis=1)
        size = show_bytes(total.max(), unit)
        tops[f"{name}, {size}"] = top = share[total.argmax()], total.max() / unit
        ax.plot(share, total / unit, drawstyle="steps-post", label=f"{name}, {size}", **style)
        ax.plot(*top, "o", color="black", markersize=4)
    top, label = max(tops.values(), key=lambda top: top[1]), f"peak {show_bytes(highest, unit)}"
    put_label(ax, label, top, (0, 5), edge=0.2, va="bottom", fontweight="bold")
    draw_marks(ax, marks)
    style = {"ncols": 3, "frameon": False, "fontsize": SMALL, "handlelength": 3.5}
    above = 1 + len(marks) * ROW / 72 * ax.figure.dpi / ax.bbox.height
    ax.legend(loc="lower left", bbox_to_anchor=(0, above), borderpad=0.2, **style)
    said = "; ".join(f"{name} at {top[0]:.0f} %" for name, top in tops.items())
    alt = f"The live bytes of one step as lines. Their peaks: {said} of the axis."
    xlabel = "share of all bytes that come or go in one step, %"
    return finish(ax, alt, xlabel=xlabel, ylabel=f"live, {unit_name}")


def _place_over(lives: Mapping[str, NDArray]) -> tuple[list[NDArray], Marks]:
    """Return where each timeline's events lie, in percent, and the marks that all of them have."""
    shares, marks = [], []
    for live in lives.values():
        total = live.sum(axis=1)
        moved = np.abs(np.diff(total, prepend=total[0])).cumsum()
        shares.append(100 * moved / max(moved[-1], 1))
        marks.append({name: place for place, name in _marks(shares[-1], live)})
    common = [name for name in marks[0] if all(name in own for own in marks)]
    ends = [[0, *(own[name] for name in common), 100] for own in marks]
    shares = [np.interp(share, own, ends[0]) for share, own in zip(shares, ends, strict=True)]
    return shares, [(marks[0][name], name) for name in common]
