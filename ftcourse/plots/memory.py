"""Where the bytes of a run go: one stacked bar for each breakdown, beside the card's capacity."""

from collections.abc import Mapping, Sequence
from math import inf
from textwrap import wrap

from matplotlib.axes import Axes

from ftcourse.errors import CourseError, check_kind
from ftcourse.memory import PARTS, MemoryBreakdown, show_bytes
from ftcourse.plots.parts import COLORS, draw_legend, put_name, say_parts
from ftcourse.plots.picture import BEYOND, SMALL, finish, new_axes, put_label, text_width, unit_of

Breakdowns = MemoryBreakdown | Sequence[MemoryBreakdown] | Mapping[str, MemoryBreakdown]

_FAR = 20  # a capacity this many times the longest bar would make the bars invisibly short


def plot_memory(
    breakdowns: Breakdowns, capacity: int | None = None, ax: Axes | None = None, context: int = 0
) -> Axes:
    """Draw one stacked bar for each breakdown, and the card's capacity in bytes as a line.

    A mapping names the bars; without one, a bar's name is its source and device. A bar is one
    moment of the step, its peak: the axis names it, or each bar if they differ. The line is at what
    the CUDA ``context`` leaves of the capacity, and what is beyond it is hatched, so that it shows
    without colour.
    """
    check_kind("capacity", capacity, int | float | None, "CARDS['T4'].memory")
    pairs = _named(breakdowns)
    names, bars = zip(*pairs, strict=True)
    moment = bars[0].moment
    if any(bar.moment != moment for bar in bars):
        names, moment = [f"{name}\n{_wrap(bar.moment)}" for name, bar in pairs], ""
    longest = max(bar.allocated for bar in bars)
    unit, unit_name = unit_of(longest)
    near = capacity is not None and capacity <= _FAR * longest
    room = (capacity - context) / unit if near else inf
    height = max(0.6, 0.16 * max(1 + name.count("\n") for name in names))
    left = 0.3 + max(text_width(name) for name in names)
    ax = ax or new_axes(1 + height * len(bars), left)
    end = max(longest / unit, room if near else 0)
    ax.set(xlim=(0, 1.25 * end), ylim=(len(bars) - 0.5, -0.5 if capacity is None else -1))
    named = set()
    for row, bar in enumerate(bars):
        named |= _draw_parts(ax, row, bar, room, unit)
        _draw_total(ax, row, bar.allocated / unit, room, unit_name)
    less = f", less {show_bytes(context, unit)} of CUDA context" if context else ""
    words = "" if capacity is None else f"{show_bytes(capacity, unit)}{less}"
    if words:
        _draw_capacity(ax, f"capacity {words}", room)
    one = bars[0].parts if len(bars) == 1 else {}  # the legend of one bar has its numbers
    labels = {part: f"{part} {one[part] / unit:.2f}" if one else part for part in PARTS}
    draw_legend(ax, {part: label for part, label in labels.items() if part not in named})
    ax.set_yticks(range(len(names)), names, size=SMALL)
    ax.locator_params(axis="x", nbins=6)
    ax.tick_params(axis="y", length=0)
    xlabel = f"memory at the peak{moment and f' ({moment})'}, {unit_name}"
    said = _say_bars(pairs, unit, moment, None if capacity is None else capacity - context)
    said += [f"Capacity: {words}"] * bool(words)
    alt = f"{' '.join('. '.join(said).split())}."  # a name may have several lines
    return finish(ax, alt, hide=("top", "right", "left"), xlabel=xlabel)


def _say_bars(
    pairs: list[tuple[str, MemoryBreakdown]], unit: int, moment: str, room: int | None
) -> list[str]:
    """Return each bar in words; a bar among many has its sum alone."""
    said = []
    for name, bar in pairs:
        over = 0 if room is None else bar.allocated - room
        fit = f", {show_bytes(over, unit)} over" if over > 0 else ", below" * (room is not None)
        at = f", at {bar.moment}" if bar.moment and not moment else ""
        sizes = say_parts(bar.parts, unit) if len(pairs) < 5 else show_bytes(bar.allocated, unit)
        said.append(f"{name}: {sizes}{at}{fit}")
    return said + [f"All at {moment}"] * bool(moment)


def _named(breakdowns: Breakdowns) -> list[tuple[str, MemoryBreakdown]]:
    """Return pairs of a bar's name and its breakdown."""
    if isinstance(breakdowns, MemoryBreakdown):
        breakdowns = [breakdowns]
    if not breakdowns:
        raise CourseError("plot_memory draws one breakdown or more.", "none", "Give it one.")
    bars = list(breakdowns.values() if isinstance(breakdowns, Mapping) else breakdowns)
    for bar in bars:
        check_kind("each bar", bar, MemoryBreakdown, "predict_memory(config)")
    if isinstance(breakdowns, Mapping):
        return list(breakdowns.items())
    return [(f"{b.source},\n{_wrap(b.device)}" if b.device else b.source, b) for b in breakdowns]


def _wrap(name: str) -> str:
    return "\n".join(wrap(name, 18))


def _draw_parts(ax: Axes, row: int, bar: MemoryBreakdown, room: float, unit: int) -> set[str]:
    """Draw one stacked bar and return the parts that had room for their name."""
    named, left = set(), 0.0
    for part, size in bar.parts.items():
        right = left + size / unit
        ax.barh(row, size / unit, 0.8, left, color=COLORS[part], edgecolor=ax.get_facecolor())
        width, start = right - left, left
        if left < room < right:  # keep the label off the line of the capacity
            width, start = max((room - left, left), (right - room, room))
        number = f"{size / unit:,.2f}"
        if _fits(ax, f"{part}\n{number}", width):
            named.add(part)
            put_name(ax, start + width / 2, row, part, f"{part}\n{number}")
        elif _fits(ax, number, width):
            put_name(ax, start + width / 2, row, part, number)
        left = right
    return named


def _fits(ax: Axes, text: str, width: float) -> bool:
    """Return whether a text of several lines is narrower than a width in data units."""
    start, end = ax.get_xlim()
    return width / (end - start) * ax.bbox.width > text_width(text) * ax.figure.dpi


def _draw_total(ax: Axes, row: int, total: float, room: float, unit_name: str) -> None:
    """Write the total at the bar's end or right of the line, and hatch what is beyond the line."""
    text, place = f"{total:,.2f} {unit_name}", total
    if total > room:
        text += f"\n{total - room:,.2f} over"
        ax.barh(row, total - room, 0.8, room, **BEYOND)
    elif not _fits(ax, f"{text}___", room - total):
        place = room  # the line would run through the text
    put_label(ax, text, (place, row), (5, 0), va="center", fontweight="bold")


def _draw_capacity(ax: Axes, label: str, room: float) -> None:
    """Draw what there is room for as a labelled line, or only name it if it is far to the right."""
    if room == inf:
        label, room = f"{label}, lies far to the right", ax.get_xlim()[1]
    else:
        ax.axvline(room, color="black", linestyle="--", linewidth=1.2)
    put_label(ax, label, (room, -0.75), (4, 0), edge=0.5, va="center", size=SMALL)
