"""Training through 4 bits: one layer of a step, restored weights over time, seeds, and healing."""

from collections.abc import Mapping, Sequence
from itertools import count

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from ftcourse.memory import show_bytes
from ftcourse.plots.picture import DARK, SMALL, draw_marks, finish, new_axes, unit_of
from ftcourse.sweeps import Mean

STORED, MOMENT, TRAINED, BACK = "#BBBBBB", "#F3F1EC", "#56B4E9", "#D55E00"
FORWARD, HEALED = "#333333", "#009E73"


def plot_qlora(outputs: int, inputs: int, rank: int, ax: Axes | None = None) -> Axes:
    """Draw one layer of a QLoRA step: what is stored, what lives for a moment, where gradients go.

    The bytes are those of NF4 with double quantization, products in bfloat16, a float32 adapter.
    """
    ax = ax or new_axes(3.1, left=0.1, right=0.1, top=0.1)
    numbers, thin = inputs * outputs, 4 * rank * (inputs + outputs)
    kept = numbers // 2 + numbers // 64 + 4 * numbers // 64 // 256  # codes, and two constants
    boxes = {
        "codes": ((2.6, 3.75), STORED, f"W as codes\n{show_bytes(kept)}, stays\nno gradient"),
        "W": (
            (5.3, 3.75),
            MOMENT,
            f"W restored\n{show_bytes(2 * numbers)}, for a\nmoment, each time",
        ),
        "A": ((2.6, 0.75), TRAINED, "A, float32\ntrained"),
        "B": ((5.3, 0.75), TRAINED, f"B, float32\n{show_bytes(thin)} with A"),
        "x": ((0.6, 2.2), MOMENT, "x"),
        "y": ((8, 2.2), MOMENT, "y"),
    }
    for (x, y), color, text in boxes.values():
        width, height = (0.7, 0.6) if len(text) == 1 else (1.9, 1.35)
        style = {"boxstyle": "round,pad=0.02", "facecolor": color, "edgecolor": FORWARD}
        style["linestyle"] = "--" if "restored" in text else "-"
        corner = (x - width / 2, y - height / 2)
        ax.add_patch(FancyBboxPatch(corner, width, height, linewidth=1, **style))
        ax.text(x, y, text, size=SMALL, ha="center", va="center")
    forward = [((0.97, 2.4), (4.33, 3.15)), ((6.27, 3.55), (7.7, 2.55)), ((3.57, 3.9), (4.33, 3.9))]
    forward += [((0.95, 2.1), (1.63, 1.3)), ((3.57, 0.9), (4.33, 0.9)), ((6.27, 1.2), (7.65, 2.05))]
    back = [((7.65, 2.35), (6.27, 3.2)), ((4.33, 2.98), (0.99, 2.24))]
    back += [((7.75, 1.88), (6.27, 0.8)), ((4.33, 0.55), (3.57, 0.55)), ((1.63, 1.0), (0.75, 1.85))]
    for color, arrows in ((FORWARD, forward), (BACK, back)):
        for start, end in arrows:
            line = {"arrowstyle": "->", "color": color, "linestyle": "--" if color == BACK else "-"}
            ax.annotate("", end, start, arrowprops=line | {"linewidth": 1.4})
    ax.text(8.75, 3.7, "forward", color=FORWARD, size=SMALL, ha="right")
    ax.text(8.75, 3.3, "gradient (dashed)", color=DARK[BACK], size=SMALL, ha="right")
    ax.set(xlim=(0, 8.8), ylim=(0, 4.5), xticks=[], yticks=[])
    alt = (
        f"A layer of {outputs} x {inputs}: {show_bytes(kept)} of codes stay. W is restored for a "
        f"moment, forward and backward, {show_bytes(2 * numbers)}. x goes through W, and through A "
        f"and B, and so does the gradient. A and B get one of their own, the codes get none."
    )
    return finish(ax, alt, hide=ax.spines, xlabel="one layer of a step, forward and backward")


def plot_restored(restored: Sequence[int], all_at_once: int, ax: Axes | None = None) -> Axes:
    """Draw the living bytes of restored weights over a step, and what all together would take."""
    ax = ax or new_axes(2.6, left=0.8, right=0.3, top=0.3)
    unit, name = (2**10, "KiB") if all_at_once < 2**24 else unit_of(all_at_once)
    ax.step(range(len(restored)), [b / unit for b in restored], where="post", color=BACK)
    ax.axhline(all_at_once / unit, color="black", linestyle=":", linewidth=1)
    ax.text(0, all_at_once / unit * 0.93, f"all at once: {all_at_once / unit:,.0f}", va="top")
    ax.set(ylim=(0, 1.1 * all_at_once / unit), xlim=(-1, len(restored)))
    most, all_of_them = max(restored) / unit, all_at_once / unit
    alt = f"Restored: never more than {most:,.0f} {name}; all at once {all_of_them:,.0f} {name}."
    xlabel = "way back: weights restored and let go, last layer to first"
    return finish(ax, alt, xlabel=xlabel, ylabel=f"restored weights, {name}")


def plot_seeds(results: Mapping[str, Mean], xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw each seed as its number, and the mean with its 95 % interval; a row for each name."""
    left = 0.4 + max(map(len, results)) * 0.09
    ax = ax or new_axes(0.8 + 0.72 * len(results), left=left, right=0.3, top=0.1)
    style = {"fmt": "|", "color": BACK, "capsize": 4, "markersize": 12, "linewidth": 1.5}
    values = [value for mean in results.values() for value in (*mean.values, *mean.interval)]
    width = 0.03 * (max(values) - min(values))
    for row, mean in enumerate(results.values()):
        ax.errorbar([mean.mean], [row + 0.16], xerr=[mean.margin], **style)
        lines = [-float("inf")] * 5  # where each line of digits ends: a digit takes the first free
        for value, seed in sorted(zip(mean.values, count())):
            line = next(n for n, end in enumerate(lines) if value - end > width or n == 4)
            lines[line] = value
            ax.text(value, row - 0.04 - 0.21 * line, f"{seed}", size=SMALL, ha="center")
    ax.set(ylim=(len(results) - 0.5, -0.95), yticks=range(len(results)), yticklabels=[*results])
    ax.set_xlim(min(values) - 2 * width, max(values) + 2 * width)
    ax.tick_params(axis="y", length=0)
    said = (f"{name}: {mean!r}." for name, mean in results.items())
    return finish(ax, f"{xlabel}. {' '.join(said)}", xlabel=xlabel)


def plot_healing(
    healed: Mapping[str, tuple[int, Sequence[int]]], count: int, ax: Axes | None = None
) -> Axes:
    """Draw how many pages each base reads before healing (a ring) and after (a dot a seed)."""
    left = 0.4 + max(map(len, healed)) * 0.09
    ax = ax or new_axes(0.9 + 0.42 * len(healed), left=left, right=0.3, top=0.35)
    for row, (before, after) in enumerate(healed.values()):
        ax.plot([before, min(after)], [row, row], color=STORED, linewidth=1)
        ax.plot([before], [row], "o", color=BACK, fillstyle="none", markersize=8)
        ax.plot(after, [row] * len(after), "o", color=HEALED, markersize=6, alpha=0.7)
    ax.set_yticks(range(len(healed)), [*healed])
    ax.set(ylim=(len(healed) - 0.5, -0.5), xlim=(-0.02 * count, 1.02 * count))
    draw_marks(ax, [(count, f"all {count}")])
    ax.tick_params(axis="y", length=0)
    said = (f"{name}: {was} before, {[*now]} after." for name, (was, now) in healed.items())
    return finish(ax, " ".join(said), xlabel="pages read right: before (ring), after (dots)")
