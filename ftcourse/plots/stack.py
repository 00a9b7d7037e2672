"""The five parts of memory as stacked areas, each named inside its area wherever it has room."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ftcourse.memory import PARTS
from ftcourse.plots.picture import COLORS, INK, SMALL, text_width

ROW = 14  # points from one row of labels above the axes to the next


def draw_stack(ax: Axes, x: NDArray, sizes: NDArray, rows: int = 0) -> None:
    """Draw the parts over x on top of each other, and name what has no room in a legend above.

    ``sizes`` has the shape (parts, points), in the axis' unit; the limits of the axes are set. The
    legend is above ``rows`` rows of other labels.
    """
    edges = np.vstack([np.zeros(len(x)), np.cumsum(sizes, axis=0)])
    unnamed = {}
    for part, low, high in zip(PARTS, edges[:-1], edges[1:], strict=True):
        ax.fill_between(x, low, high, color=COLORS[part], linewidth=0)
        place = _find_room(ax, part, x, low, high)
        if place is None:
            unnamed[part] = part
        else:
            box = {"facecolor": COLORS[part], "edgecolor": "none", "pad": 1}  # hides lines below it
            style = {"color": INK[part], "size": SMALL, "ha": "center", "va": "center"}
            ax.text(*place, part, bbox=box, zorder=4, **style)
    draw_legend(ax, unnamed, rows)


def draw_legend(ax: Axes, labels: Mapping[str, str], rows: int = 0) -> None:
    """Explain parts that have no room for their names: above the axes and rows of other labels."""
    if labels:
        handles = [Patch(color=COLORS[part], label=label) for part, label in labels.items()]
        style = {"frameon": False, "fontsize": SMALL, "handlelength": 1, "columnspacing": 0.9}
        style |= {"handletextpad": 0.4, "borderpad": 0.2}
        side = ("left", "right")[len(labels) == len(COLORS)]  # all need more than the axes' width
        above = (side == "right", 1 + rows * ROW / 72 * ax.figure.dpi / ax.bbox.height)
        ax.legend(handles=handles, ncols=5, loc=f"lower {side}", bbox_to_anchor=above, **style)


def _find_room(
    ax: Axes, text: str, x: NDArray, low: NDArray, high: NDArray
) -> tuple[float, float] | None:
    """Return the middle of a place in an area that has room for a text, or None.

    We slide a window as wide as the text over the area, in pixels, because an axis may be
    logarithmic.
    """
    below, above = (ax.transData.transform(np.column_stack([x, y])) for y in (low, high))
    columns = np.arange(below[0, 0], below[-1, 0], 2)
    scale = ax.figure.dpi / 72
    width = int(text_width(text, SMALL) * scale / 2) + 1
    if width > len(columns):
        return None
    floor = np.interp(columns, below[:, 0], below[:, 1])
    ceiling = np.interp(columns, above[:, 0], above[:, 1])
    windows = np.lib.stride_tricks.sliding_window_view
    floor, ceiling = windows(floor, width).max(-1), windows(ceiling, width).min(-1)
    room = ceiling - floor
    if room.max() < 1.3 * SMALL * scale:
        return None
    roomy = np.flatnonzero(room > 0.9 * room.max())
    best = roomy[len(roomy) // 2]
    middle = (columns[best] + width, (floor[best] + ceiling[best]) / 2)  # a column has 2 pixels
    return tuple(ax.transData.inverted().transform(middle))


def draw_mark(ax: Axes, x: float, text: str, row: int) -> None:
    """Draw a dotted line at x, with its name in one of the rows above the axes."""
    ax.axvline(x, color="black", linestyle=":", linewidth=1)
    pixel = ax.transData.transform((x, 0))[0]
    right = pixel > ax.bbox.x0 + ax.bbox.width / 2
    place = {"xytext": (0, 3 + row * ROW), "textcoords": "offset points", "size": SMALL}
    ax.annotate(
        text, (x, 1), xycoords=ax.get_xaxis_transform(), ha="right" if right else "left", **place
    )
