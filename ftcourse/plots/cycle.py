"""One training step as a drawing: what computes what, and which of it takes memory."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ftcourse.plots.parts import COLORS, INK
from ftcourse.plots.picture import BOX, SMALL, finish, new_axes

# Name to its middle, in a field of 8 by 3.
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
_WORDS = (
    "A training step. Tokens go through the weights to probabilities and a loss: forward. The "
    "activations are kept on the way. From loss and activations come the gradients: backward. From "
    "them the optimizer makes the step that changes the weights. Overhead is scratch memory."
)


def plot_training_step(ax: Axes | None = None) -> Axes:
    """Draw a training step; what takes memory is coloured, with the colours of all pictures."""
    ax = ax or new_axes(2.9, left=0.1, right=0.1, top=0.05)
    ax.set(xlim=(0, 8), ylim=(0, 3), xticks=(), yticks=())
    boxes, style = {}, {"ha": "center", "va": "center", "zorder": 3}
    for name, (x, y) in _PLACES.items():
        colors = {"edgecolor": "#666666", "facecolor": COLORS.get(name, "white")}
        box = FancyBboxPatch((x - 0.6, y - 0.2), 1.2, 0.4, "round,pad=0.05", **colors)
        boxes[name] = ax.add_patch(box)
        ax.text(x, y, name, color=INK.get(name, "black"), **style)
    for start, end, label in _ARROWS:
        ends = {"patchA": boxes[start], "patchB": boxes[end], "shrinkA": 1, "shrinkB": 1}
        line = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "#333333"}
        ax.add_patch(FancyArrowPatch(_PLACES[start], _PLACES[end], **ends, **line))
        middle = [(a + b) / 2 for a, b in zip(_PLACES[start], _PLACES[end], strict=True)]
        ax.text(*middle, label, fontsize=SMALL, bbox=BOX if label else None, **style)
    return finish(ax, _WORDS, hide=ax.spines, xlabel="one training step")
