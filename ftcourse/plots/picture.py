"""What all pictures share: the colours of the parts, an Axes with a text alternative, its PNG."""

from collections.abc import Mapping
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ftcourse.hardware import GIB
from ftcourse.memory import PARTS, show_bytes

# Four colours of Okabe and Ito ("Color Universal Design", 2008) and a light grey. Colour-blind eyes
# can tell them apart, and text on them has a contrast above 4.5:1 (both are tested).
COLORS = {
    "weights": "#0072B2",
    "gradients": "#E69F00",
    "optimizer": "#009E73",
    "activations": "#D55E00",
    "overhead": "#CCCCCC",
}
INK = dict.fromkeys(PARTS, "black") | {"weights": "white"}
PAPER = "#F3F1EC"  # a card that glares neither on a white page nor on a black one
BOX = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # behind a label: it hides lines
INK_OF_LOSS = {"training": "#333333", "held out": "#882255"}
SMALL = 9  # font size in points


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
    figure = picture if isinstance(picture, Figure) else picture.figure
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def new_axes(height: float, left: float, right: float = 0.3, top: float = 0.35) -> Picture:
    """Return an Axes on its own figure, 8 inches wide, with these margins in inches.

    With known margins we need no layout engine, which would draw everything twice.
    """
    bottom = 0.5
    box = (left / 8, bottom / height, 1 - (left + right) / 8, 1 - (bottom + top) / height)
    figure = Figure(figsize=(8, height), facecolor="none")
    style = {"boxstyle": "round,pad=0,rounding_size=0.1", "color": PAPER, "linewidth": 0}
    card = FancyBboxPatch((0, 0), 8, height, transform=figure.dpi_scale_trans, **style)
    figure.add_artist(card).set_zorder(-1)
    return figure.add_axes(box, axes_class=Picture, facecolor=PAPER)


def text_width(text: str, size: float = 10) -> float:
    """Return a width in points that is enough for the longest line of a text."""
    return 0.66 * size * max(map(len, text.split("\n")))


def unit_of(size: float) -> tuple[int, str]:
    """Return the unit for an axis that ends at ``size`` bytes, and its name."""
    return (GIB, "GiB") if size >= GIB else (2**20, "MiB")


def say_parts(parts: Mapping[str, float], like: float | None = None) -> str:
    """Return the parts and their sum in words, in one unit: that of ``like``, or of the sum."""
    total = sum(parts.values())
    words = [f"{part} {show_bytes(size, like or total)}" for part, size in parts.items()]
    return f"{', '.join(words)}; in all {show_bytes(total, like or total)}"
