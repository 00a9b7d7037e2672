"""Where the bytes of a run go: one stacked bar for each breakdown, beside the card's capacity."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ftcourse.errors import CourseError
from ftcourse.memory import PARTS, MemoryBreakdown, show_bytes
from ftcourse.plots.picture import (
    COLORS,
    INK,
    SMALL,
    Picture,
    new_axes,
    text_width,
    unit_name,
    unit_of,
)

Breakdowns = MemoryBreakdown | Sequence[MemoryBreakdown] | Mapping[str, MemoryBreakdown]

_FAR = 20  # a capacity this many times the longest bar would make the bars invisibly short


def plot_memory(
    breakdowns: Breakdowns, capacity: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one stacked bar for each breakdown, and the card's capacity in bytes as a line.

    A mapping names the bars; without one, a bar's name is its source and device. What is beyond the
    capacity is hatched, so that it shows without colour.
    """
    names, bars = zip(*_named(breakdowns), strict=True)
    longest = max(bar.allocated for bar in bars)
    far = capacity is not None and capacity > _FAR * longest
    end = longest if capacity is None or far else max(longest, capacity)
    unit = unit_of(end)
    ax = ax or new_axes(1 + 0.6 * len(bars), left=0.2 + max(map(text_width, names)) / 72)
    ax.set(xlim=(0, 1.2 * end / unit), ylim=(len(bars) - 0.5, -0.5 if capacity is None else -1))
    named = set()
    for row, bar in enumerate(bars):
        named |= _draw_parts(ax, row, bar, (capacity or 0) / unit, unit)
        _draw_total(ax, row, bar.allocated, capacity, unit)
    if capacity is not None:
        _draw_capacity(ax, capacity, unit, far)
    _draw_legend(ax, bars, named, unit)
    _draw_frame(ax, names, unit)
    if isinstance(ax, Picture):
        ax.alt = describe_memory(breakdowns, capacity)
    return ax


def describe_memory(breakdowns: Breakdowns, capacity: int | None = None) -> str:
    """Return in words what ``plot_memory`` draws."""
    sentences = []
    for name, bar in _named(breakdowns):
        parts = ", ".join(f"{part} {show_bytes(size)}" for part, size in bar.parts.items())
        sentences.append(f"{' '.join(name.split())}: {parts}; in all {show_bytes(bar.allocated)}.")
    if capacity is not None:
        sentences.append(f"Capacity: {show_bytes(capacity)}.")
    return " ".join(sentences)


def _named(breakdowns: Breakdowns) -> list[tuple[str, MemoryBreakdown]]:
    """Return pairs of a bar's name and its breakdown."""
    if isinstance(breakdowns, MemoryBreakdown):
        breakdowns = [breakdowns]
    if not breakdowns:
        raise CourseError("plot_memory draws one breakdown or more.", "none", "Give it one.")
    if isinstance(breakdowns, Mapping):
        return list(breakdowns.items())
    return [(f"{b.source},\n{b.device}" if b.device else b.source, b) for b in breakdowns]


def _draw_parts(ax: Axes, row: int, bar: MemoryBreakdown, capacity: float, unit: int) -> set[str]:
    """Draw one stacked bar and return the parts that had room for their name."""
    named, left = set(), 0.0
    for part, size in bar.parts.items():
        right = left + size / unit
        ax.barh(row, size / unit, 0.8, left, color=COLORS[part], edgecolor="white", linewidth=0.8)
        pieces = [(left, right)]
        if left < capacity < right:  # keep the label off the line of the capacity
            pieces = [(left, capacity), (capacity, right)]
        named |= _label_part(ax, row, part, f"{size / unit:.2f}", max(pieces, key=_length))
        left = right
    return named


def _length(piece: tuple[float, float]) -> float:
    return piece[1] - piece[0]


def _label_part(ax: Axes, row: int, part: str, number: str, piece: tuple[float, float]) -> set[str]:
    """Write name and number into a piece of a bar, or the number alone, if there is room."""
    label = next((t for t in (f"{part}\n{number}", number) if _fits(ax, t, _length(piece))), None)
    if label:
        box = {"facecolor": COLORS[part], "edgecolor": "none", "pad": 0.5}
        place = {"ha": "center", "va": "center", "zorder": 4, "bbox": box}
        ax.text(sum(piece) / 2, row, label, color=INK[part], fontsize=SMALL, **place)
    return {part} if label and label != number else set()


def _fits(ax: Axes, text: str, width: float) -> bool:
    """Return whether a text of several lines is narrower than a width in data units."""
    start, end = ax.get_xlim()
    return width / (end - start) * ax.bbox.width > text_width(text, SMALL) * ax.figure.dpi / 72


def _draw_total(ax: Axes, row: int, total: int, capacity: int | None, unit: int) -> None:
    """Write the total at the bar's end, and hatch what is beyond the capacity."""
    text = f"{total / unit:.2f} {unit_name(unit)}"
    if capacity is not None and total > capacity:
        beyond = total - capacity
        text += f"\n{beyond / unit:.2f} over"
        style = {"fill": False, "hatch": "///", "edgecolor": "black", "linewidth": 0}
        ax.barh(row, beyond / unit, 0.8, capacity / unit, **style)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "zorder": 4}
    ax.annotate(text, (total / unit, row), fontweight="bold", bbox=box, **place)


def _draw_capacity(ax: Axes, capacity: int, unit: int, far: bool) -> None:
    """Draw the capacity as a labelled line, or only name it if it is far to the right."""
    label, end = f"capacity {show_bytes(capacity)}", ax.get_xlim()[1]
    if far:
        ax.text(end, -0.75, f"{label} lies far to the right", ha="right", va="center")
        return
    ax.axvline(capacity / unit, color="black", linestyle="--", linewidth=1.2)
    right = capacity / unit > end / 2
    place = {"textcoords": "offset points", "xytext": (-4 if right else 4, 0), "va": "center"}
    ax.annotate(label, (capacity / unit, -0.75), ha="right" if right else "left", **place)


def _draw_legend(ax: Axes, bars: Sequence[MemoryBreakdown], named: set[str], unit: int) -> None:
    """Explain above the bars the parts that no bar has room to name; for one bar, with numbers."""
    labels = {
        part: f"{part} {bars[0].parts[part] / unit:.2f}" if len(bars) == 1 else part
        for part in PARTS
        if part not in named
    }
    if labels:
        handles = [Patch(color=COLORS[part], label=label) for part, label in labels.items()]
        style = {"frameon": False, "fontsize": SMALL, "handlelength": 1, "columnspacing": 1.2}
        ax.legend(handles=handles, ncols=5, loc="lower left", bbox_to_anchor=(0, 1), **style)


def _draw_frame(ax: Axes, names: Sequence[str], unit: int) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.locator_params(axis="x", nbins=6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"memory at the peak, {unit_name(unit)}")
    ax.spines[["top", "right", "left"]].set_visible(False)
