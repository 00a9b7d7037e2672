"""Looking things up: the way of a question, shares with their intervals, recall over k."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from ftcourse.evaluate import Score
from ftcourse.plots.picture import (
    DARK,
    PAPER,
    SMALL,
    draw_marks,
    finish,
    new_axes,
    say_shares,
    text_width,
)

INK, STORE, SECRET, GOOD = "#333333", "#56B4E9", "#D55E00", "#009E73"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#882255")  # of Okabe and Ito, and a dark red


def plot_lookup(question: str, k: int, ax: Axes | None = None) -> Axes:
    """Draw the way of a question: labels, search, the k best passages, the prompt, the answer."""
    ax = ax or new_axes(2.5, left=0.1, right=0.1, top=0.1)
    boxes = {
        "store": ((1.0, 2.35), STORE, "all pages\nin chunks"),
        "labels": ((3.05, 2.35), SECRET, "labels:\nwhat this reader\nmay see"),
        "search": ((5.2, 2.35), PAPER, "search: score each\nchunk beside\nthe question"),
        "best": ((7.35, 2.35), PAPER, f"the {k} best\nare passages"),
        "question": ((1.0, 0.6), PAPER, question),
        "model": ((5.2, 0.6), STORE, "model reads\npassages and question"),
        "answer": ((7.35, 0.6), GOOD, "answer,\nand its page"),
    }
    for (x, y), color, text in boxes.values():
        style = {"boxstyle": "round,pad=0.02", "facecolor": color, "edgecolor": INK}
        ax.add_patch(FancyBboxPatch((x - 0.82, y - 0.42), 1.64, 0.84, linewidth=1, **style))
        ax.text(x, y, text, size=SMALL, ha="center", va="center")
    arrows = [((1.85, 2.35), (2.2, 2.35)), ((3.9, 2.35), (4.35, 2.35)), ((6.05, 2.35), (6.5, 2.35))]
    arrows += [((1.6, 1.05), (4.4, 1.9)), ((1.85, 0.6), (4.35, 0.6)), ((6.05, 0.6), (6.5, 0.6))]
    for start, end in [*arrows, ((7.0, 1.9), (5.9, 1.05))]:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4})
    ax.set(xlim=(0, 8.3), ylim=(0, 3), xticks=[], yticks=[])
    alt = (
        f"All pages are cut into chunks. Labels leave what the reader may see. A search scores "
        f"these chunks beside the question; the {k} best are passages. The model reads them and "
        f"the question, and gives an answer with its page."
    )
    return finish(ax, alt, hide=ax.spines, xlabel="a question is looked up and answered")


def plot_shares(
    shares: Mapping[str, Score | Mapping[str, Score]], xlabel: str, ax: Axes | None = None
) -> Axes:
    """Draw shares in percent with their 95 % intervals: a row for each name.

    A row may have several series by name; each series has its colour and its shape.
    """
    rows = {name: s if isinstance(s, Mapping) else {"": s} for name, s in shares.items()}
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    left = 0.3 + text_width("\n".join(rows))
    ax = ax or new_axes(1.05 + 0.36 * len(rows), left=left, top=0.35 if len(series) > 1 else 0.1)
    for number, name in enumerate(series):
        shift = 0.22 * (number - (len(series) - 1) / 2)
        style = {"fmt": "os^D"[number], "color": SERIES[number], "capsize": 3, "markersize": 5}
        style["mec"] = INK
        found = [(y + shift, row[name]) for y, row in enumerate(rows.values()) if name in row]
        places, scores = [y for y, _ in found], [score for _, score in found]
        ends = [[abs(100 * (s.share - s.interval[end])) for s in scores] for end in (0, 1)]
        ax.errorbar([100 * s.share for s in scores], places, xerr=ends, label=name, **style)
    if len(series) > 1:
        box = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "fontsize": SMALL}
        ax.legend(ncols=len(series), borderaxespad=0.1, handletextpad=0.2, **box)
    ax.set(ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=[*rows])
    ax.set_xlim(-2, 102)
    ax.grid(axis="x", color="white", linewidth=1)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    said = {name: {n: row[name].share for n, row in rows.items() if name in row} for name in series}
    return finish(ax, f"{xlabel}. {say_shares(said)}", xlabel=xlabel)


def plot_recall(lines: Mapping[str, Sequence[Score]], k: int, ax: Axes | None = None) -> Axes:
    """Draw shares over how many passages are taken, from 1 on, with bands; ``k`` is marked."""
    ax = ax or new_axes(2.5, left=0.7, right=2.3, top=0.35)
    draw_marks(ax, [(k, f"k = {k}")])
    ends = []
    for (name, scores), color, mark in zip(lines.items(), SERIES, "os^D", strict=False):
        x, y = range(1, len(scores) + 1), [100 * s.share for s in scores]
        bounds = [[100 * s.interval[end] for s in scores] for end in (0, 1)]
        ax.plot(x, y, mark, linestyle="-", color=color, markersize=5)
        ax.fill_between(x, *bounds, color=color, alpha=0.15, linewidth=0)
        ends.append((y[-1], name, color))
    low = 101.0
    for height, name, color in sorted(ends, reverse=True):  # labels never cover each other
        low = min(height, low - 9)
        place = {"xytext": (10, 0), "textcoords": "offset points", "va": "center"}
        place |= {"color": DARK.get(color, color), "annotation_clip": False}
        ax.annotate(name, (len(x), low), size=SMALL, **place)
    ax.set(ylim=(0, 103), xticks=x, xlim=(0.7, len(x) + 0.3))
    said = (f"{n} at 1: {s[0]!r}; at {k}: {s[k - 1]!r}." for n, s in lines.items())
    return finish(
        ax, " ".join(said), xlabel="passages taken, the best first", ylabel="questions, %"
    )
