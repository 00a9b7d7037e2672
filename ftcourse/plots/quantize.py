"""Pictures of weights in few bits: bit layouts, levels, and what the model can still read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ftcourse.hardware import GIB
from ftcourse.plots.picture import SMALL, finish, new_axes, say_shares

INK_OF_SCHEME = {"integer": "#D55E00", "affine": "#E69F00", "normal": "#0072B2", "fp4": "#009E73"}
NAMES = {"integer": "integers", "affine": "integers with a zero point", "normal": "normal levels"}
NAMES |= {"fp4": "FP4"}
_PARTS = {"sign": "#D55E00", "exponent": "#56B4E9", "fraction": "#D8D5CC"}
_NEAR, _NEXT = "#0072B2", "#8FBBD9"  # the bars of one level and of the next


def plot_bits(number: float, absmax: float, ax: Axes | None = None) -> Axes:
    """Draw the bits of a number in float32, bfloat16, float16 and int8, and what each restores.

    int8 is the number's share of ``absmax`` in 127 steps.
    """
    ax = ax or new_axes(1.9, left=0.8, right=0.1, top=0.4)
    words = []
    for row, (name, bits, exponent, value) in enumerate(_layouts(number, absmax)):
        for place, bit in enumerate(bits):
            part = "sign" if not place else "exponent" if place <= exponent else "fraction"
            ax.barh(row, 0.9, 0.7, place - 0.45, color=_PARTS[part])
            ax.text(place, row, bit, ha="center", va="center", fontsize=SMALL)
        ax.text(len(bits), row, f"= {value:.9g}", va="center", fontsize=SMALL)
        words.append(f"{name}: {bits}, which is {value:.9g}.")
    ax.set(xlim=(-0.6, 39), ylim=(3.6, -0.6), xticks=[], yticks=range(4))
    ax.set_yticklabels(["float32", "bfloat16", "float16", "int8"])
    for place, (part, ink) in zip((20, 25, 32), _PARTS.items(), strict=True):
        ax.text(place, 3.05, part, bbox={"color": ink, "pad": 2}, va="center", size=SMALL)
    ax.tick_params(length=0)
    return finish(ax, " ".join(words), hide=ax.spines, title=f"the bits of {number:.9g}")


def _layouts(number: float, absmax: float) -> list[tuple[str, str, int, float]]:
    """Return each format's name, its bits, how many are the exponent's, and the value."""
    whole = int(np.float32(number).view(np.uint32))
    short = (whole + 0x7FFF + (whole >> 16 & 1)) >> 16  # to the nearest, in the middle to even
    half, step = np.float16(number), round(number / absmax * 127)
    return [
        ("float32", f"{whole:032b}", 8, float(np.float32(number))),
        ("bfloat16", f"{short:016b}", 8, float(np.uint32(short << 16).view(np.float32))),
        ("float16", f"{int(half.view(np.uint16)):016b}", 5, float(half)),
        ("int8", f"{step & 0xFF:08b}", 0, step / 127 * absmax),
    ]


def plot_rounding(
    weights: Sequence[float], levels: Mapping[str, Sequence[float]], ax: Axes | None = None
) -> Axes:
    """Draw weights on a line for each kind of levels, each weight tied to its nearest level."""
    ax = ax or new_axes(0.7 + 0.75 * len(levels), left=1.3, right=0.2, top=0.1)
    weights, words = np.asarray(weights), []
    for row, (name, places) in enumerate(levels.items()):
        places = np.asarray(places)
        nearest = places[np.abs(weights[:, None] - places).argmin(1)]
        ax.hlines(row, places.min(), places.max(), color="#8A867A", linewidth=1)
        ax.vlines(places, row - 0.16, row + 0.16, color="#333333", linewidth=1)
        ax.plot([weights, nearest], [row - 0.45, row - 0.16], color=_NEAR, linewidth=1)
        ax.plot(weights, np.full(len(weights), row - 0.45), "o", color=_NEAR, markersize=5)
        error = np.sqrt(np.mean((weights - nearest) ** 2))
        words.append(f"{name}: {len(places)} levels, {len(set(nearest))} used, error {error:.2g}.")
    ax.set(ylim=(len(levels) - 0.6, -0.8), yticks=range(len(levels)), yticklabels=levels)
    ax.tick_params(axis="y", length=0)
    return finish(ax, " ".join(words), hide=("top", "right", "left"), xlabel="weight")


def plot_levels(
    values: Any, levels: Sequence[float], ax: Axes | None = None, xlabel: str = "weight / absmax"
) -> Axes:
    """Draw a histogram of weights in units of their block, cut where the next level is nearer.

    Up to 16 levels are drawn, with the share of the weights that falls to each.
    """
    ax = ax or new_axes(2.9, left=0.2, right=0.2, top=0.45)
    values, levels = np.asarray(values).ravel(), np.unique(levels)
    middles = (levels[1:] + levels[:-1]) / 2
    step = (levels[-1] - levels[0]) / 240
    counts, edges = np.histogram(values, np.arange(levels[0] - step / 2, levels[-1] + step, step))
    places = edges[:-1] + step / 2
    inks = np.where(np.searchsorted(middles, places) % 2, _NEXT, _NEAR)
    ax.bar(places, counts, step, color=inks)
    shares = np.bincount(np.searchsorted(middles, values), minlength=len(levels)) / len(values)
    words = [f"{len(values):,} weights; {np.count_nonzero(shares)} of {len(levels)} levels used,"]
    words += [f"the fullest, {levels[shares.argmax()]:.2g}, by {shares.max():.1%}."]
    if len(levels) <= 16:
        ax.vlines(levels, 0, 1.08 * counts.max(), color="#333333", linewidth=0.8)
        for level, share in zip(levels, shares, strict=True):
            ax.text(level, 1.1 * counts.max(), f"{100 * share:.0f}", ha="center", fontsize=SMALL)
        words.append("Share at each: " + ", ".join(f"{share:.0%}" for share in shares) + ".")
        ax.set_title("per cent of the weights at each level", fontsize=SMALL + 1, pad=10)
    ax.set(yticks=[], ylim=(0, 1.18 * counts.max()))
    return finish(ax, " ".join(words), hide=("top", "right", "left"), xlabel=xlabel)


def plot_scores(scores: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Draw a bar for each Score, with its 95 % interval."""
    ax = ax or new_axes(0.75 + 0.34 * len(scores), left=2.3, right=0.6, top=0.1)
    for row, score in enumerate(scores.values()):
        low, high = score.interval
        ax.barh(row, score.share, 0.7, color=_NEXT)
        ax.plot([low, high], [row, row], color="black", linewidth=1)
        ax.text(high + 0.01, row, f"{score.share:.0%}", va="center", fontsize=SMALL)
    words = say_shares({"": {name: score.share for name, score in scores.items()}})
    ax.set(xlim=(0, 1), yticks=range(len(scores)), yticklabels=scores, ylim=(len(scores) - 0.5, -1))
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.tick_params(axis="y", length=0)
    return finish(ax, f"Answered right. {words}", xlabel="questions answered right")


def plot_ability(
    runs: Sequence[Mapping[str, Any]], across: str = "bits_per_weight", ax: Axes | None = None
) -> Axes:
    """Draw what each recorded run reads right, over its bits a weight or its error."""
    ax = ax or new_axes(3.4, left=0.85, right=0.2, top=0.35)
    words, markers = [], dict(zip(INK_OF_SCHEME, "sDo^", strict=True))
    for scheme, ink in INK_OF_SCHEME.items():
        points = sorted((run[across], run["right"] / run["count"]) for run in runs
                        if run["scheme"] == scheme)  # fmt: skip
        if points:
            style = {"color": ink, "mec": "#333333", "mew": 0.6, "label": NAMES[scheme]}
            ax.plot(*zip(*points, strict=True), markers[scheme], **style)
            words.append(f"{NAMES[scheme]}: {_say_way(points)}")
    ax.legend(frameon=False, fontsize=SMALL, loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1))
    ax.set_ylim(-0.03, 1.03)
    for axis in [ax.yaxis, ax.xaxis] if across == "error" else [ax.yaxis]:
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    names = {"error": "error of the weights (RMS)", "loss": "loss of a token of plain text"}
    xlabel = names.get(across, "bits a weight, constants counted")
    return finish(ax, f"{'. '.join(words)}.", xlabel=xlabel, ylabel="read right")


def _say_way(points: list[tuple[float, float]]) -> str:
    """Return both ends of a line in words, and the first place beyond a half."""
    (first, low), (last, high) = points[0], points[-1]
    beyond = [x for x, y in points if (y >= 0.5) != (low >= 0.5)]
    half = f", across a half at {beyond[0]:.3g}" if beyond else ""
    return f"{low:.0%} at {first:.3g}, {high:.0%} at {last:.3g}{half}"


def plot_fits(
    sizes: Mapping[str, Mapping[str, float]], rooms: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Draw the bytes of models in several formats, and the smallest device with room for each."""
    columns = list(next(iter(sizes.values())))
    ax = ax or new_axes(0.9 + 0.42 * len(sizes), left=1.6, right=0.1, top=0.5)
    inks, largest = ["#B7D5C8", "#C9DDEB", "#E4E2DC", "#F0D9C4"], {}
    for row, (model, formats) in enumerate(sizes.items()):
        for column, (name, size) in enumerate(formats.items()):
            fitting = [room for room in rooms if size <= rooms[room]]
            place = min(fitting, key=rooms.get) if fitting else "too large"
            ink = inks[list(rooms).index(place)] if fitting else "#FFFFFF"
            ax.barh(row, 0.96, 0.86, column - 0.48, color=ink)
            text = f"{size / GIB:.1f} GiB: {place}"
            ax.text(column, row, text, ha="center", va="center", fontsize=SMALL - 0.5)
            largest |= {name: f"{model}, {text}"} if fitting else {}
    ax.set(xlim=(-0.5, len(columns) - 0.5), xticks=range(len(columns)), xticklabels=columns)
    ax.set(ylim=(len(sizes) - 0.5, -0.5), yticks=range(len(sizes)), yticklabels=sizes)
    ax.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
    words = (f"{name}: {largest.get(name, 'none')}." for name in columns)
    alt = f"The last model in each format that something has room for. {' '.join(words)}"
    return finish(ax, alt, hide=ax.spines, xlabel="weights, and what has room for them")
