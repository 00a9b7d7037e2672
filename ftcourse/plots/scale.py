"""Several cards in pictures: what each holds, and how long it computes and sends."""

from collections.abc import Mapping
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ftcourse.hardware import Card
from ftcourse.memory import MemoryBreakdown, show_bytes
from ftcourse.memory.fit import context_bytes
from ftcourse.plots.memory import plot_memory
from ftcourse.plots.picture import SMALL, finish, new_axes, put_label
from ftcourse.scale import Seconds

HELD, LENT, SENT = "#0072B2", "#E69F00", "#D55E00"  # Okabe and Ito
BLOCKS = ("embeddings", *(f"layer {number}" for number in range(1, 6)))


def plot_held(ax: Axes | None = None) -> Axes:
    """Draw what each of two processes holds of a model with five layers: DDP, then FSDP.

    The moment is the forward pass of layer 3, when FSDP has gathered that layer.
    """
    names = ["alone", "DDP, process 0", "DDP, process 1", "FSDP, process 0", "FSDP, process 1"]
    ax = ax or new_axes(0.9 + 0.45 * len(names), left=1.35, right=0.1, top=0.5)
    ax.set(xlim=(-0.1, len(BLOCKS)), ylim=(len(names) - 0.4, -0.6))
    for row in range(len(names)):
        for x, block in enumerate(BLOCKS):
            share, start = (1, 0) if row < 3 else (0.5, 0.5 * (row - 3))
            frame = (x, row - 0.3), 0.9, 0.6
            if row >= 3 and block == "layer 3":
                ax.add_patch(Rectangle(*frame, fc=LENT, hatch="//", ec="black", lw=0))
            piece = (x + 0.9 * start, row - 0.3), 0.9 * share, 0.6
            ax.add_patch(Rectangle(*piece, color=HELD, lw=0))
            ax.add_patch(Rectangle(*frame, fill=False, ec="#555555", lw=0.8))
    ax.set_xticks([x + 0.45 for x in range(len(BLOCKS))], BLOCKS, size=SMALL)
    ax.set_yticks(range(len(names)), names, size=SMALL)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    alt = (
        "A model of embeddings and five layers. Alone, and in both processes of DDP, every block "
        "is held whole. In FSDP each process holds one half of every block, and while layer 3 "
        "works, the other half of layer 3 as well, borrowed for a moment."
    )
    return finish(
        ax,
        alt,
        hide=ax.spines,
        xlabel="blue: kept for the whole step; hatched: borrowed while layer 3 works",
    )


def plot_cards(steps: Mapping[int, MemoryBreakdown], card: Card, chosen: int | None = None) -> Axes:
    """Draw the bytes of one card, part by part, for so many cards each; mark the chosen bar."""
    names = {count: f"{count} GPU{'s' * (count > 1)}" for count in steps}
    if chosen:
        names[chosen] = f"▸ {names[chosen]}"
    bars = {names[count]: replace(step, moment="") for count, step in steps.items()}
    picture = plot_memory(bars, card.memory, context=context_bytes(card))
    sizes = [show_bytes(steps[count].allocated) for count in (min(steps), max(steps))]
    found = f"From {min(steps)} to {max(steps)} GPUs one of them goes from {' to '.join(sizes)}."
    label = f"one GPU's {picture.get_xlabel()}"
    return finish(picture, f"{found} {picture.alt}", hide=("top", "right", "left"), xlabel=label)


def plot_seconds(found: Mapping[str, Seconds], ax: Axes | None = None) -> Axes:
    """Draw what a step computes and what it sends, in seconds on a logarithmic axis."""
    left = 0.4 + 0.075 * max(len(line) for name in found for line in name.split("\n"))
    ax = ax or new_axes(1.0 + 0.4 * len(found), left=left, right=0.6, top=0.45)
    ends = [x for each in found.values() for x in (each.computing, each.sending) if x > 0]
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_formatter(lambda x, _: "")
    ax.set(xlim=(min(ends) / 2.5, 2.5 * max(ends)), ylim=(len(found) - 0.4, -0.6))
    said: dict[str, list[str]] = {}
    for row, (name, each) in enumerate(found.items()):
        pair = (each.computing, each.sending)
        ax.plot(pair, (row, row), color="#767676", linewidth=1, zorder=1)
        for x, mark, ink, above in zip(pair, "so", (HELD, SENT), (True, False), strict=True):
            label = {True: "computes", False: "sends"}[above] if row == 0 else None
            ax.plot(x, row, mark, color=ink, markersize=7, label=label, linestyle="")
            place = (0, 6) if above else (0, -14)
            put_label(ax, f"{x:.2g}", (x, row), place, edge=0, size=SMALL)
        run, _, link = name.rpartition("\n")
        computes = f"{run} computes {each.computing:.2g} s, sends".strip()
        said.setdefault(computes, []).append(f"{each.sending:.2g} ({link})")
    ax.set_yticks(range(len(found)), [*found], size=SMALL)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=SMALL)
    slow = [name for name, each in found.items() if each.sending > each.computing]
    alt = f"Sending takes longer in {len(slow)} of {len(found)} rows."
    rows = (f"{run} {', '.join(sent)}." for run, sent in said.items())
    return finish(ax, " ".join([alt, *rows]), xlabel="seconds of a step, predicted (logarithmic)")
