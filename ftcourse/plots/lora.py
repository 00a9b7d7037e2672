"""What a small matrix can hold: energy by rank, quality by rank, and the two thin matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ftcourse.plots.picture import DARK, SMALL, finish, new_axes, put_label
from ftcourse.sweeps import Mean

FROZEN, TRAINED, NOISE = "#BBBBBB", "#0072B2", "#D55E00"
INKS = (TRAINED, NOISE, "#009E73", "#882255")  # Okabe and Ito, and a dark red


def plot_lora(outputs: int, inputs: int, rank: int, ax: Axes | None = None) -> Axes:
    """Draw W beside B and A, to scale, each with its number of entries."""
    ax = ax or new_axes(2.9, left=0.2, right=0.2, top=0.35)
    side = max(outputs, inputs)
    left = inputs + 0.5 * side  # of B; between the matrices is room for signs
    places = {
        "W, frozen": (0, 0, inputs, outputs),
        "B, trained": (left, 0, rank, outputs),
        "A, trained": (left + rank + 0.14 * side, outputs - rank, inputs, rank),
    }
    for name, (x, y, width, height) in places.items():
        color = TRAINED if "trained" in name else FROZEN
        ax.add_patch(Rectangle((x, y), width, height, color=color, linewidth=0))
        text = f"{name}\n{height} x {width} = {height * width:,}"
        middle = {"A": (x, y - 0.2 * side), "B": (x + rank + 3, outputs * 0.4)}
        place = middle.get(name[0], (0.2 * side, outputs / 2))
        ax.text(*place, text, size=SMALL, va="center")
    ax.text(left - 0.07 * side, outputs / 2, "+ scaling ·", size=10, ha="right", va="center")
    ax.set(xlim=(0, left + rank + inputs + 0.14 * side), ylim=(0, outputs), aspect="equal")
    ax.set(xticks=[], yticks=[])
    trained = rank * (inputs + outputs)
    alt = (
        f"W has {outputs} x {inputs} = {inputs * outputs:,} frozen entries. Beside it are B, "
        f"{outputs} x {rank}, and A, {rank} x {inputs}: {trained:,} trained entries together."
    )
    title = {"title": f"an update of rank {rank}: {trained / (inputs * outputs):.1%} of W"}
    return finish(ax, alt, hide=("top", "right", "bottom", "left"), **title)


def plot_energy(curves: Mapping[str, Sequence[Sequence[float]]], ax: Axes | None = None) -> Axes:
    """Draw the share of the energy that the best rank-r part holds, over r.

    A curve has one row or more, such as one a module: a line for the mean, a band for the range.
    """
    ax = ax or new_axes(3.2, left=0.7, right=1.9, top=0.2)
    words = []
    for ink, (name, rows) in zip(INKS, curves.items(), strict=False):
        rows = np.atleast_2d(np.asarray(rows, dtype=float))
        ranks, mean = np.arange(1, rows.shape[1] + 1), rows.mean(0)
        ax.plot(ranks, mean, color=ink, linewidth=1.5)
        ax.fill_between(ranks, rows.min(0), rows.max(0), color=ink, alpha=0.2, linewidth=0)
        enough = int((mean >= 0.9).argmax()) + 1
        ax.plot([enough], [mean[enough - 1]], "o", color=ink, markersize=4)
        text, place = f"{name}:\n90 % at rank {enough}", (1.03, 0.8 - 0.25 * len(words))
        ax.text(*place, text, color=DARK.get(ink, ink), size=SMALL, transform=ax.transAxes)
        held = ", ".join(f"{mean[r - 1]:.0%} at rank {r}" for r in (1, 8, 16) if r <= len(mean))
        words.append(f"{name}: {held}; 90 % at rank {enough}.")
    _log_ranks(ax, [2**k for k in range(12) if 2**k <= len(ranks)])
    ax.set(xlim=(1, len(ranks)), ylim=(0, 1), yticks=[0, 0.5, 0.9, 1])
    labels = {"xlabel": "rank of the best part", "ylabel": "share of the energy"}
    return finish(ax, " ".join(words), **labels)


def plot_over_ranks(
    lines: Mapping[str, Mapping[int, Mean]],
    ylabel: str,
    levels: Mapping[str, Mean] | None = None,
    marks: Mapping[str, tuple[int, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a recorded result over the ranks, with 95 % intervals over the seeds.

    ``levels`` are results that have no rank, such as a full fine-tune's; ``marks`` are single runs:
    a name to its rank and result.
    """
    ax = ax or new_axes(3.2, left=0.8, right=1.6, top=0.2)
    ranks = sorted({rank for line in lines.values() for rank in line})
    words, beside = [], {"size": SMALL, "textcoords": "offset points", "annotation_clip": False}
    for ink, (name, line) in zip(INKS, lines.items(), strict=False):
        x, means = sorted(line), [line[rank] for rank in sorted(line)]
        y, margin = ([getattr(m, part) for m in means] for part in ("mean", "margin"))
        ax.errorbar(x, y, margin, fmt="o-", color=ink, linewidth=1.2, capsize=3, markersize=4)
        ax.annotate(name, (x[-1], y[-1]), (26, 4), color=DARK.get(ink, ink), va="bottom", **beside)
        at = f"at ranks {', '.join(map(str, x))}"
        words.append(f"{name}: {', '.join(f'{value:.3f}' for value in y)} {at}.")
    for name, level in (levels or {}).items():
        ax.axhline(level.mean, color="black", linestyle="--", linewidth=1)
        ax.axhspan(*level.interval, color="black", alpha=0.1, linewidth=0)
        ax.annotate(name, (ranks[-1], level.mean), (26, -4), va="top", **beside)
        far = {
            (n, r): abs(m.mean - level.mean) for n, line in lines.items() for r, m in line.items()
        }
        near = "{} at rank {}".format(*min(far, key=far.get))
        words.append(f"{name}: {level!r}, {near} is nearest.")
    for name, (rank, result) in (marks or {}).items():
        ax.plot([rank], [result], "D", color="black", markersize=7, fillstyle="none")
        put_label(ax, name, (rank, result), (8, -16), edge=0.7, size=SMALL)
        words.append(f"{name}: {result:.3f} at rank {rank}.")
    _log_ranks(ax, ranks)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter("{x:g}")
    return finish(ax, f"{ylabel}. {' '.join(words)}", xlabel="rank", ylabel=ylabel)


def _log_ranks(ax: Axes, ranks: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, map(str, ranks))
    ax.minorticks_off()
