"""How the bytes of a run change with one field of its config."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError, check_kind
from ftcourse.hardware import Card
from ftcourse.memory import MemoryBreakdown, predict_memory, show_bytes
from ftcourse.plots.parts import draw_stack, say_parts
from ftcourse.plots.picture import BEYOND, finish, new_axes, put_label, text_width, unit_of

_FAR = 4  # a capacity this many times above the highest sum would make the areas flat


def plot_memory_against(
    config: FinetuneConfig,
    field: str,
    values: Sequence[int],
    card: Card | None = None,
    capacity: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the predicted bytes of a step, part upon part, over the values of one field.

    ``field`` is a field with whole numbers: rank, max_length, batch_size or bits. Only the dots are
    predicted; the lines between them are straight. Powers of two get a logarithmic axis. The
    capacity in bytes is a line; marks say where one part overtakes another as the largest.
    """
    values = _check(config, field, values)
    runs = {value: predict_memory(replace(config, **{field: value}), card) for value in values}
    total = np.array([run.allocated for run in runs.values()])
    near = capacity is not None and capacity <= _FAR * total.max()
    end = max(total.max(), capacity if near else 0)
    (unit, unit_name), marks = unit_of(end), _overtakings(runs)
    ax = ax or new_axes(3.4, left=0.7, right=0.25, top=0.35 + 0.2 * len(marks))
    if all(value & (value - 1) == 0 for value in values):
        ax.set_xscale("log", base=2)
    ax.set(xlim=(values[0], values[-1]), ylim=(0, 1.15 * end / unit))
    ax.plot(values, total / unit, "o-", color="black", markersize=3, linewidth=1, clip_on=False)
    sizes = np.array([list(run.parts.values()) for run in runs.values()]).T / unit
    draw_stack(ax, np.array(values), sizes, marks)
    if capacity is not None:
        label = f"capacity {show_bytes(capacity)}"
        _draw_capacity(ax, np.array(values), total / unit, capacity / unit, label)
    _draw_ticks(ax, values)
    labels = {"xlabel": field.replace("_", " "), "ylabel": f"at the peak, {unit_name}"}
    return finish(ax, _describe(field, runs, marks, capacity), **labels)


def _check(config: FinetuneConfig, field: str, values: Sequence[int]) -> list[int]:
    """Return the values in order, each once."""
    check_kind("values", values, Sequence, "[256, 512, 1024]")
    found = getattr(config, field, None)
    if not isinstance(found, int) or isinstance(found, bool) or len(set(values)) < 2:
        raise CourseError(
            "plot_memory_against draws a field with whole numbers, at two values or more.",
            f"field={field!r} at {list(values)}",
            "Try field='max_length' at [256, 512, 1024, 2048].",
        )
    return sorted(set(values))


def _overtakings(runs: dict[int, MemoryBreakdown]) -> list[tuple[float, str]]:
    """Return a place and a text for each change of the largest part, between two values."""
    found = []
    for (low, before), (high, after) in pairwise(runs.items()):
        old, new = before.largest_part, after.largest_part
        if old != new:
            behind = before.parts[old] - before.parts[new]
            ahead = after.parts[new] - after.parts[old]
            place = low + (high - low) * behind / (behind + ahead)
            found.append((place, f"{new} overtake{'s' * (not new.endswith('s'))} {old}"))
    return found


def _draw_capacity(ax: Axes, x: NDArray, total: NDArray, level: float, label: str) -> None:
    """Draw the capacity as a labelled line and hatch what is above it; or say that it is far."""
    top = ax.get_ylim()[1]
    if level > top:
        put_label(ax, f"{label} lies far above", (x[0], top), (4, -3), va="top")
        return
    ax.axhline(level, color="black", linestyle="--", linewidth=1.2)
    ax.fill_between(x, level, total, where=total > level, interpolate=True, **BEYOND)
    put_label(ax, label, (x[0], level), (4, 5))


def _draw_ticks(ax: Axes, values: Sequence[int]) -> None:
    """Draw a tick at each value, or at every second or third if there is no room."""
    pixels = ax.transData.transform([(value, 0) for value in values])[:, 0]
    widths = [text_width(f" {value} ") * ax.figure.dpi for value in values]
    stride = 1
    while any(np.diff(pixels[::stride]) < widths[::stride][1:]):
        stride += 1
    ax.set_xticks(values[::stride], map(str, values[::stride]))
    ax.minorticks_off()


def _describe(field: str, runs: dict[int, MemoryBreakdown], marks: list, capacity: int | None):
    """Return in words what the picture shows: both ends, the overtakings, and the capacity."""
    words = [f"Predicted memory against {field.replace('_', ' ')}."]
    words += [f"At {value}: {say_parts(runs[value].parts)}." for value in (min(runs), max(runs))]
    words += [f"At about {place:.1f} {text}." for place, text in marks]
    if capacity is not None:
        below = [value for value, run in runs.items() if run.allocated <= capacity]
        which = f"the values up to {below[-1]} are below it" if below else "all values are above it"
        words.append(f"Capacity: {show_bytes(capacity)}; {which}.")
    return " ".join(words)
