"""What all pictures share: an Axes with a text alternative, its PNG, labels and marks."""

from collections.abc import Collection, Iterable, Mapping
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ftcourse.hardware import GIB

PAPER = "#F3F1EC"  # a card that glares neither on a white page nor on a black one
BOX = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # behind a label: it hides lines
INK_OF_LOSS = {"training": "#333333", "held out": "#AA3377"}
DARK = {"#D55E00": "#AF4D00", "#009E73": "#00795A", "#56B4E9": "#1F6FA3", "#CC79A7": "#A04080"}
"""For text in a colour, and for lines that have no other mark: 4.5:1 on our paper."""
BEYOND = {"facecolor": "none", "hatch": "///", "edgecolor": "black", "linewidth": 0}  # capacity
SMALL = 9  # font size in points
ROW = 14  # points from one row of labels above the axes to the next
Marks = Collection[tuple[float, str]]  # where a line is, and its name


class Picture(Axes):
    """An Axes that a notebook shows as its figure, with a text alternative."""

    alt = ""

    def __repr__(self) -> str:
        """Return a name without numbers, which may differ from one run to the next."""
        return f"<Picture: {self.get_title() or self.get_xlabel()}>"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """Return what IPython shows for the last value of a cell, and its metadata."""
        return png(self, dpi=100), {"alt": self.alt}


def png(picture: Figure | Axes, dpi: float) -> bytes:
    """Return a figure, or the figure of an Axes, as the bytes of a PNG file."""
    buffer = BytesIO()
    picture.figure.savefig(buffer, format="png", dpi=dpi)  # a figure's figure is itself
    return buffer.getvalue()


def new_axes(height: float, left: float, right: float = 0.3, top: float = 0.35) -> Picture:
    """Return an Axes on its own figure, 8 inches wide, with these margins in inches."""
    bottom = 0.5
    box = (left / 8, bottom / height, 1 - (left + right) / 8, 1 - (bottom + top) / height)
    figure = Figure(figsize=(8, height), facecolor="none")
    style = {"boxstyle": "round,pad=0,rounding_size=0.1", "color": PAPER, "linewidth": 0}
    card = FancyBboxPatch((0, 0), 8, height, transform=figure.dpi_scale_trans, **style)
    figure.add_artist(card).set_zorder(-1)
    # With known margins we need no layout engine, which would draw everything twice.
    return figure.add_axes(box, axes_class=Picture, facecolor=PAPER)


def finish(ax: Axes, alt: str, hide: Iterable[str] = ("top", "right"), **labels: str) -> Axes:
    """Hide sides of the frame, name the axes, give a Picture its words, and return the Axes."""
    ax.spines[[*hide]].set_visible(False)
    ax.set(**labels)
    if isinstance(ax, Picture):
        ax.alt = alt
    return ax


def say_shares(series: Mapping[str, Mapping[str, float]], room: int = 250) -> str:
    """Return each series' shares in words, from the highest to the lowest, or only these two.

    If even that needs more than ``room`` characters, those series are left that differ most.
    """
    said = []
    for name, shares in series.items():
        rows = [f"{row} {shares[row]:.0%}" for row in sorted(shares, key=shares.get)[::-1]]
        if len(", ".join(rows)) * len(series) > room:
            rows = [rows[0], f"lowest {rows[-1]}"]
        spread = max(shares.values()) - min(shares.values())
        said.append((spread, f"{name}{name and ': '}highest {', '.join(rows)}."))
    while len(" ".join(text for _, text in said)) > room and said[1:]:
        said.remove(min(said))
    return " ".join(text for _, text in said)


def text_width(text: str) -> float:
    """Return a width in inches that is enough for the longest line of a small text."""
    return 0.66 * SMALL / 72 * max(map(len, text.split("\n")))


def unit_of(size: float) -> tuple[int, str]:
    """Return the unit for an axis that ends at ``size`` bytes, and its name."""
    return (GIB, "GiB") if size >= GIB else (2**20, "MiB")


def put_label(
    ax: Axes, text: str, place: tuple, shift: tuple[float, float], edge: float = 1, **style: Any
) -> None:
    """Write a text this many points beside a place and above it; its box hides lines.

    In the first share ``edge`` of the width it begins at the place; in the last one it ends there.
    """
    pixel = ax.get_xaxis_transform().transform((place[0], 0))[0]
    share = (pixel - ax.bbox.x0) / ax.bbox.width
    side = "left" if share <= edge else "right" if share > 1 - edge else "center"
    shift = (-shift[0] if side == "right" else shift[0], shift[1])
    style |= {"xytext": shift, "textcoords": "offset points", "ha": side}
    ax.annotate(text, place, bbox=BOX | {"facecolor": ax.get_facecolor()}, zorder=4, **style)


def draw_marks(ax: Axes, marks: Marks) -> None:
    """Draw a dotted line at each mark, with its name in a row of its own above the axes."""
    for row, (x, text) in enumerate(marks):
        ax.axvline(x, color="black", linestyle=":", linewidth=1)
        style = {"xycoords": ax.get_xaxis_transform(), "size": SMALL}
        put_label(ax, text, (x, 1), (0, 3 + row * ROW), edge=0.5, **style)
