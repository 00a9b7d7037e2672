"""Six ways of answering in one picture, and two columns of their table against each other."""

from collections.abc import Collection, Iterable, Mapping
from textwrap import wrap

from matplotlib.axes import Axes

from ftcourse.plots.picture import SMALL, finish, new_axes
from ftcourse.which_one import COLUMNS, Cell, Column, Table

SHOWN = {
    "right": "right, known wording",
    "right in\nnew words": "right, new wording",
    "up to date": "changed fact, after",
    "declines": "unanswerable, declined",
    "in voice": "facts in voice",
    "keeps\nsecrets": "leak",
    "resists a\nfalse page": "poison believed, stuffed",
    "time for 40\nnew facts": "seconds, forty facts",
}
"""What a manager asks, and the column that answers it."""
BEST, OTHER, GONE, LINE = "#0072B2", "#9CC9E3", "#CFCFCF", "#333333"
INKS = (BEST, "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito
ROW, WIDE = 0.46, 0.86  # inches of a row; a full bar's share of its column
THICK = 9  # points of a bar


def plot_arms(
    table: Table,
    columns: Mapping[str, str] | Iterable[str] = SHOWN,
    ax: Axes | None = None,
    best: str = "",
    dropped: Collection[str] = (),
) -> Axes:
    """Draw arms down and needs across, so that a long bar is good everywhere.

    A share of which less is better is turned: "leak" becomes "no leak", or the heading that a
    mapping gives. A quantity's bar is the least of all arms divided by its own. Dark and bold are
    the best of a column and all that may be as good. ``best`` and ``dropped`` are marked.
    """
    if not isinstance(columns, Mapping):
        named = {f"no {name}" if _is_turned(COLUMNS[name]) else name: name for name in columns}
        columns = {"\n".join(wrap(words, 11)): name for words, name in named.items()}
    reasons = [table[arm][name].why for arm in table for name in columns.values()]
    notes = list(dict.fromkeys(filter(None, reasons)))
    lines = [line for n, why in enumerate(notes, 1) for line in wrap(f"{n}: {why}", 112)]
    foot = ROW * len([*table]) + 0.05
    top = 0.1 + 0.16 * max(name.count("\n") + 1 for name in columns)
    tall = foot + 0.16 * len(lines)
    ax = ax or new_axes(0.5 + top + tall, left=1.4, right=0.05, top=top)
    ax.set(xlim=(0, len(columns)), ylim=(tall, 0), xticks=[], yticks=[])
    marks = dict.fromkeys(dropped, "\n✗ dropped") | {best: "\n✓ recommended"}
    for row, arm in enumerate(table):
        style = {"va": "center", "ha": "right", "weight": "bold" if arm == best else "normal"}
        ax.text(-0.08, (row + 0.5) * ROW, arm + marks.get(arm, ""), size=SMALL, **style)
    said = []
    for x, (heading, name) in enumerate(columns.items()):
        ax.text(x, -0.05, heading, size=SMALL, va="bottom")
        words = _draw_column(ax, x, {arm: table[arm][name] for arm in table}, notes, dropped)
        said.append(f"{' '.join(heading.split())}: {words}.")
    ax.text(-1.6, foot, "\n".join(lines), size=SMALL - 1, va="top", linespacing=1.25)
    label = "long: good; dark: the best, and all that may be as good; line: 95 %"
    verdict = [f"Recommended: {best}."] * bool(best)
    verdict += [f"Dropped: {', '.join(dropped)}."] * bool(dropped)
    return finish(ax, " ".join([*verdict, "The best:", *said]), hide=ax.spines, xlabel=label)


def _draw_column(
    ax: Axes, x: int, cells: Mapping[str, Cell], notes: list[str], dropped: Collection[str]
) -> str:
    """Draw a cell of each arm; return the best in words."""
    found = {arm: cell for arm, cell in cells.items() if cell.value is not None}
    least = min((cell.value for cell in found.values()), default=0)
    bars = {arm: _bar(cell, least) for arm, cell in found.items()}
    _, bound, _ = max(bars.values(), default=(0, 0, 0))
    told, inks = {}, {}
    heights = {arm: (row + 0.7) * ROW for row, arm in enumerate(cells)}
    for arm, cell in cells.items():
        text, first = f"- ({notes.index(cell.why) + 1})" if cell.why else cell.text, False
        if arm in bars:
            value, _, high = bars[arm]
            first = bool(cell.column.better) and value > 0 and high > bound - 1e-9
            inks[arm] = GONE if arm in dropped else BEST if first else OTHER
            text = told[arm] = cell.say(value) if _is_turned(cell.column) else cell.text
        style = {"size": SMALL, "va": "center", "weight": "bold" if first else "normal"}
        ax.text(x, heights[arm] - 0.2, text, **style)
    at, ends = [heights[arm] for arm in bars], zip(*bars.values(), strict=True)
    value, low, high = ([x + WIDE * end for end in each] for each in ends) if bars else ([], [], [])
    ax.hlines(at, x, x + WIDE, color="white", linewidth=THICK)
    ax.hlines(at, x, value, color=[*inks.values()], linewidth=THICK)
    ax.hlines(at, low, high, color=LINE, linewidth=1)  # nothing to see without an interval
    best = max(bars, key=lambda arm: bars[arm][0], default="")
    return f"{best} {told[best]}" if best else "none"


def _is_turned(column: Column) -> bool:
    return (column.unit, column.better) == ("%", "less")


def _bar(cell: Cell, least: float) -> tuple[float, ...]:
    """Return how far a bar reaches, and its interval: 1 is the best."""
    ends = cell.value, *((cell.value,) * 2 if cell.low is None else (cell.low, cell.high))
    if cell.column.unit != "%":
        ends = [min(least / end, 1) if end else 1 for end in ends]
    elif _is_turned(cell.column):
        ends = [1 - end for end in ends]
    return ends[0], min(ends[1:]), max(ends[1:])


def plot_trade(table: Table, x: str, y: str, ax: Axes | None = None) -> Axes:
    """Draw two columns against each other, with intervals; an arm without one of both is named.

    An axis is logarithmic where the largest quantity is more than twenty times the least.
    """
    shown = {arm: (table[arm][x], table[arm][y]) for arm in table}
    shown = {arm: pair for arm, pair in shown.items() if None not in [c.value for c in pair]}
    ax = ax or new_axes(3.3, left=0.8, right=1.4, top=0.35)
    for number, pair in enumerate(shown.values()):
        (a, *reach_a), (b, *reach_b) = map(_point, pair)
        ends = {"xerr": [[end] for end in reach_a], "yerr": [[end] for end in reach_b]}
        ax.errorbar(a, b, **ends, fmt="osD^vP"[number], color=INKS[number], mec=LINE, markersize=7)
    for side, name in (("x", x), ("y", y)):
        _set_axis(ax, side, name, [table[arm][name].value for arm in shown])
    points = {arm: tuple(_point(cell)[0] for cell in pair) for arm, pair in shown.items()}
    heights = {arm: ax.transData.transform(at)[1] / ax.bbox.height for arm, at in points.items()}
    floor = ax.bbox.y0 / ax.bbox.height
    place = 1.1
    for number, arm in enumerate(sorted(points, key=lambda arm: -heights[arm]), 1):
        least = 0.1 * (len(points) - number)  # room for those below: no label covers another
        place = min(place - 0.1, max(heights[arm] - floor, least))
        line = {"arrowstyle": "-", "color": "#999999", "shrinkB": 5, "relpos": (0, 0.5)}
        text = {"textcoords": ax.transAxes, "va": "center", "size": SMALL, "arrowprops": line}
        ax.annotate(arm, points[arm], (1.04, place), annotation_clip=False, **text)
    said = [f"{arm}: {a.text} and {b.text}." for arm, (a, b) in shown.items()]
    if none := ", ".join(arm for arm in table if arm not in shown):
        ax.set_title(f"They have no such thing: {none}.", size=SMALL, loc="left")
    return finish(ax, f"{x} and {y}. {' '.join(said)} {ax.get_title(loc='left')}".strip())


def _point(cell: Cell) -> tuple[float, float, float]:
    """Return a value, in % if it is a share, and how far its interval reaches down and up."""
    low, high = (cell.value,) * 2 if cell.low is None else (cell.low, cell.high)
    scale = 100 if cell.count else 1
    return tuple(scale * max(x, 0) for x in (cell.value, cell.value - low, high - cell.value))


def _set_axis(ax: Axes, side: str, name: str, values: list[float]) -> None:
    """Name an axis; show all of it for shares; make it logarithmic if values differ so much."""
    ax.set(**{f"{side}label": f"{name}, {COLUMNS[name].unit}"})
    least = min((value for value in values if value > 0), default=1)
    if COLUMNS[name].unit == "%":
        ax.set(**{f"{side}lim": (-3, 103)})
    elif max(values, default=0) > 20 * least:
        getattr(ax, f"set_{side}scale")("symlog", linthresh=least)  # it has room for 0
        getattr(ax, f"{side}axis").set_major_formatter("{x:,g}")
