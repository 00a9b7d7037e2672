"""One's own data: the way of a file, lengths, a learning rate's search, what a run does."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ftcourse.plots.picture import DARK, SMALL, draw_marks, finish, new_axes, put_label, say_shares
from ftcourse.sweeps import Mean

KEPT, CUT, LINE = "#56B4E9", "#D55E00", "#333333"
BARS = ("#555555", "#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito, and a grey
# A box to its middle in a field of 8 by 3, its text, and its colour.
_BOXES = {
    "file": (0.85, 2.5, "your file\nread, audited", "white"),
    "train": (2.95, 2.5, "training rows\nanswers are learned", KEPT),
    "run": (5.15, 2.5, "a run\nkilled, resumed", KEPT),
    "adapter": (7.15, 2.5, "an adapter\nkept, merged", KEPT),
    "validation": (2.95, 1.5, "validation rows\nfor every choice", "#F0E442"),
    "stop": (5.15, 1.5, "rate, mixture,\nwhen to stop", "#F0E442"),
    "test": (2.2, 0.5, "test rows\nread once", "white"),
    "score": (7.15, 0.5, "the score\nthat you tell", "white"),
}
_ARROWS = ("file train", "train run", "run adapter", "file validation", "validation stop")
_ARROWS += ("stop run", "file test", "test score", "adapter score")


def plot_way(ax: Axes | None = None) -> Axes:
    """Draw the way from a file to an adapter, and which rows decide what."""
    ax = ax or new_axes(3.1, left=0.1, right=0.1, top=0.05)
    ax.set(xlim=(0, 8), ylim=(0, 3), xticks=(), yticks=())
    patches = {}
    for name, (x, y, text, color) in _BOXES.items():
        style = {"edgecolor": "#666666", "facecolor": color}
        box = FancyBboxPatch((x - 0.72, y - 0.28), 1.44, 0.56, "round,pad=0.05", **style)
        patches[name] = ax.add_patch(box)
        ax.text(x, y, text, size=SMALL, ha="center", va="center", zorder=3)
    for arrow in _ARROWS:
        start, end = arrow.split()
        ends = {"patchA": patches[start], "patchB": patches[end], "shrinkA": 1, "shrinkB": 1}
        style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": LINE}
        ax.add_patch(FancyArrowPatch(_BOXES[start][:2], _BOXES[end][:2], **ends, **style))
    alt = (
        "Your file is split in three. Training rows, whose answers are learned, go into a run, "
        "which makes an adapter. Validation rows decide rate, mixture, and when to stop. Test rows "
        "are read once, for the score of the adapter that you tell."
    )
    return finish(ax, alt, hide=ax.spines, xlabel="from a file to an adapter")


def plot_lengths(lengths: Sequence[int], max_length: int, ax: Axes | None = None) -> Axes:
    """Draw how many records have how many tokens; what is longer than ``max_length`` is cut."""
    ax = ax or new_axes(2.5, left=0.7, right=0.3, top=0.4)
    longest, shortest = max(*lengths, max_length), min(*lengths, max_length)
    size = max(1, (longest - shortest) // 25)
    below = (max_length - shortest) // size + 1  # an edge stands at max_length
    edges = [*range(max_length + 1 - below * size, longest + 2 * size, size)]
    parts = [x for x in lengths if x <= max_length], [x for x in lengths if x > max_length]
    ax.hist(parts, edges, stacked=True, color=(KEPT, CUT), edgecolor=LINE, linewidth=0.6)
    draw_marks(ax, [(max_length, f"max_length {max_length}")])
    if cut := len(parts[1]):
        place = longest, ax.get_ylim()[1] / 2
        put_label(ax, f"{cut} longer", place, (0, 0), 0.5, color=DARK[CUT], size=SMALL)
    alt = (
        f"{len(lengths)} records of {min(lengths)} to {max(lengths)} tokens; {cut} are longer than "
        f"{max_length}."
    )
    return finish(ax, alt, xlabel="tokens of a record", ylabel="records")


def plot_search(
    rates: Sequence[float], losses: Sequence[float], suggestion: float, ax: Axes | None = None
) -> Axes:
    """Draw the loss of each step of a learning-rate search over the rate of that step."""
    ax = ax or new_axes(2.6, left=0.7, right=0.3, top=0.4)
    ax.plot(rates, losses, ".-", color=LINE, linewidth=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")  # 0.01 rather than a power of ten
    low, first = min(losses), losses[0]
    ax.set_ylim(max(0, low - 0.3 * (first - low)), first + 1.2 * (first - low))
    draw_marks(ax, [(suggestion, f"suggestion {suggestion:.2g}")])
    best = rates[[*losses].index(low)]
    alt = (
        f"The rate grows from {rates[0]:.1g} to {rates[-1]:.1g}. The loss begins at {first:.2f} "
        f"and is lowest, {low:.2f}, at {best:.1g}. Suggested: {suggestion:.2g}."
    )
    return finish(ax, alt, xlabel="learning rate of the step", ylabel="training loss")


def plot_effects(
    found: Mapping[str, Mapping[str, Mean]], title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw shares of answers in percent: a group of bars for each measure, a bar for each model.

    ``found`` is model to measure to mean; whiskers are 95 % intervals over seeds, dots
    are the seeds.
    """
    measures = [*next(iter(found.values()))]
    tall = 1.0 + 0.2 * len(found) * len(measures) + 0.14 * len(measures) + 0.2 * len(found)
    left = 0.35 + 0.075 * max(map(len, measures))
    ax = ax or new_axes(tall, left=left, right=0.5, top=0.15 + 0.2 * len(found))
    step = len(found) + 0.7
    for number, (name, values) in enumerate(found.items()):
        places = [row * step + number for row in range(len(measures))]
        shares = [100 * values[measure].mean for measure in measures]
        style = {"color": BARS[number % len(BARS)], "edgecolor": LINE, "linewidth": 0.6}
        ax.barh(places, shares, height=0.85, label=name, **style)
        for place, share, measure in zip(places, shares, measures, strict=True):
            low, high = (min(max(100 * end, 0), 100) for end in _ends(values[measure]))
            ax.plot([low, high], [place, place], color="black", linewidth=1)
            seeds = [100 * value for value in values[measure].values]
            if len(seeds) > 1:
                ax.plot(seeds, [place] * len(seeds), ".", color="black", markersize=4)
            ax.text(max(share, high) + 1.5, place, f"{share:.0f}", size=SMALL, va="center")
    middle = (len(found) - 1) / 2
    ax.set_yticks([row * step + middle for row in range(len(measures))], measures)
    ax.set(xlim=(0, 108), ylim=(len(measures) * step - 0.9, -0.8), xticks=range(0, 101, 20))
    ax.tick_params(axis="y", length=0)
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "fontsize": SMALL}
    ax.legend(**style, borderpad=0, handlelength=1.2)
    label = title or "share of answers, %"
    words = {m: {name: values[m].mean for name, values in found.items()} for m in measures}
    return finish(ax, f"{label}. {say_shares(words)}", xlabel=label)


def _ends(mean: Mean) -> tuple[float, float]:
    """Return the interval, or the value itself if there is a single one."""
    return mean.interval if len(mean.values) > 1 else (mean.mean, mean.mean)
