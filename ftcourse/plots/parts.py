"""The five parts of memory in every picture: their colours, names, areas and words."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ftcourse.memory import PARTS, show_bytes
from ftcourse.plots.picture import ROW, SMALL, Marks, draw_marks, text_width

# Four colours of Okabe and Ito ("Color Universal Design", 2008) and a light grey. Colour-blind eyes
# can tell them apart, and text on them has a contrast above 4.5:1 (tests/test_colours.py).
COLORS = {
    "weights": "#0072B2",
    "gradients": "#E69F00",
    "optimizer": "#009E73",
    "activations": "#D55E00",
    "overhead": "#CCCCCC",
}
INK = dict.fromkeys(PARTS, "black") | {"weights": "white"}


def draw_stack(ax: Axes, x: NDArray, sizes: NDArray, marks: Marks) -> None:
    """Draw the parts over x on top of each other, marks, and a legend of what has no room inside.

    ``sizes`` has the shape (parts, points), in the axis' unit; the limits of the axes are set.
    """
    edges = np.vstack([np.zeros(len(x)), np.cumsum(sizes, axis=0)])
    unnamed = {}
    for part, low, high in zip(PARTS, edges[:-1], edges[1:], strict=True):
        ax.fill_between(x, low, high, color=COLORS[part], linewidth=0)
        if place := _find_room(ax, part, x, low, high):
            put_name(ax, *place, part, part)
        else:
            unnamed[part] = part
    draw_marks(ax, marks)
    draw_legend(ax, unnamed, len(marks))


def put_name(ax: Axes, x: float, y: float, part: str, text: str) -> None:
    """Write a text in the middle of a part's area; its box hides lines."""
    box = {"facecolor": COLORS[part], "edgecolor": "none", "pad": 0.5}
    style = {"color": INK[part], "size": SMALL, "ha": "center", "va": "center"}
    ax.text(x, y, text, bbox=box, zorder=4, **style)


def draw_legend(ax: Axes, labels: Mapping[str, str], rows: int = 0) -> None:
    """Explain parts that have no room for their names: above the axes and rows of other labels."""
    if labels:
        handles = [Patch(color=COLORS[part], label=label) for part, label in labels.items()]
        style = {"frameon": False, "fontsize": SMALL, "handlelength": 1, "columnspacing": 0.9}
        style |= {"handletextpad": 0.4, "borderpad": 0.2}
        side = "right" if len(labels) == len(COLORS) else "left"  # five need more than its width
        above = (side == "right", 1 + rows * ROW / 72 * ax.figure.dpi / ax.bbox.height)
        ax.legend(handles=handles, ncols=5, loc=f"lower {side}", bbox_to_anchor=above, **style)


def _find_room(
    ax: Axes, text: str, x: NDArray, low: NDArray, high: NDArray
) -> tuple[float, float] | None:
    """Slide a window as wide as a text over an area; return the middle of a place with room."""
    # In pixels, because an axis may be logarithmic.
    below, above = (ax.transData.transform(np.column_stack([x, y])) for y in (low, high))
    columns = np.arange(below[0, 0], below[-1, 0], 2)
    width = int(text_width(text) * ax.figure.dpi / 2) + 1
    if width > len(columns):
        return None
    floor = np.interp(columns, below[:, 0], below[:, 1])
    ceiling = np.interp(columns, above[:, 0], above[:, 1])
    windows = np.lib.stride_tricks.sliding_window_view
    floor, ceiling = windows(floor, width).max(-1), windows(ceiling, width).min(-1)
    room = ceiling - floor
    if room.max() < 1.3 * SMALL / 72 * ax.figure.dpi:
        return None
    roomy = np.flatnonzero(room > 0.9 * room.max())
    best = roomy[len(roomy) // 2]
    middle = (columns[best] + width, (floor[best] + ceiling[best]) / 2)  # a column has 2 pixels
    return tuple(ax.transData.inverted().transform(middle))


def say_parts(parts: Mapping[str, float], like: float | None = None) -> str:
    """Return the sum of parts in words, in the unit of ``like``, and those above a sixth of it."""
    total = sum(parts.values())
    large = sorted((part for part in parts if 6 * parts[part] > total), key=parts.get, reverse=True)
    words = [f"{part} {show_bytes(parts[part], like or total).split()[0]}" for part in large]
    return f"{show_bytes(total, like or total)} ({', '.join(words) or 'nothing'})"
