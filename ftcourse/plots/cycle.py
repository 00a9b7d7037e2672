"""One training step as a drawing: what computes what, and which of it takes memory."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ftcourse.plots.picture import COLORS, INK, PAPER, SMALL, Picture, new_axes

# Name to its middle, in a field of 8 by 3. The five parts of memory have their colours.
_PLACES = {
    "tokens": (0.8, 2.6),
    "weights": (2.9, 2.6),
    "probabilities": (5.1, 2.6),
    "loss": (7.2, 2.6),
    "activations": (5.1, 1.5),
    "gradients": (5.1, 0.4),
    "optimizer": (2.9, 0.4),
    "overhead": (7.2, 0.4),
}
# From, to, and what happens on the way.
_ARROWS = (
    ("tokens", "weights", ""),
    ("weights", "probabilities", ""),
    ("probabilities", "loss", ""),
    ("weights", "activations", "forward: kept"),
    ("activations", "gradients", "used"),
    ("loss", "gradients", "backward"),
    ("gradients", "optimizer", ""),
    ("optimizer", "weights", "step"),
)


def plot_training_step(ax: Axes | None = None) -> Axes:
    """Draw a training step; what takes memory is coloured, with the colours of all pictures."""
    ax = ax or new_axes(2.9, left=0.1, right=0.1, top=0.05)
    ax.set(xlim=(0, 8), ylim=(0.15, 3))
    ax.set_axis_off()
    ax.set_xlabel("one training step")  # not drawn: it is the picture's name
    boxes = {name: _draw_box(ax, name, *place) for name, place in _PLACES.items()}
    for start, end, label in _ARROWS:
        ends = {"patchA": boxes[start], "patchB": boxes[end], "shrinkA": 1, "shrinkB": 1}
        style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "#333333"}
        ax.add_patch(FancyArrowPatch(_PLACES[start], _PLACES[end], **ends, **style))
        middle = [(a + b) / 2 for a, b in zip(_PLACES[start], _PLACES[end], strict=True)]
        _draw_label(ax, *middle, label)
    if isinstance(ax, Picture):
        ax.alt = (
            "A training step. Tokens go through the weights to probabilities and a loss: forward. "
            "The activations are kept on the way. From loss and activations come the gradients: "
            "backward. From them the optimizer makes the step that changes the weights. "
            "Overhead is scratch memory on the way."
        )
    return ax


def _draw_box(ax: Axes, name: str, x: float, y: float) -> FancyBboxPatch:
    box = FancyBboxPatch((x - 0.6, y - 0.2), 1.2, 0.4, "round,pad=0.05", edgecolor="#666666")
    box.set_facecolor(COLORS.get(name, "white"))
    ax.text(x, y, name, ha="center", va="center", color=INK.get(name, "black"), zorder=3)
    return ax.add_patch(box)


def _draw_label(ax: Axes, x: float, y: float, text: str) -> None:
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
    ax.text(x, y, text, ha="center", va="center", fontsize=SMALL, zorder=3, bbox=box)
