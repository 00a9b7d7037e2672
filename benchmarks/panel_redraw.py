"""Milliseconds that a panel takes to answer a control, in the kernel.

Run ``python benchmarks/panel_redraw.py``. The browser's own time is not in it.
"""

import statistics
import time

from ftcourse.widgets.memory import memory_panel
from ftcourse.widgets.panel import Panel
from ftcourse.widgets.which_one import which_one_panel

MOVES = 50


def redraw(panel: Panel, name: str) -> str:
    """Move a control up and down; return the median and the slowest redraw in words."""
    control, times = panel.controls[name], []
    choices = [choice[1] if isinstance(choice, tuple) else choice for choice in control.options]
    for move in range(MOVES):
        begin = time.perf_counter()
        control.value = choices[1 + move % (len(choices) - 1)]
        times.append(1000 * (time.perf_counter() - begin))
    return f"median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms, {MOVES} redraws"


if __name__ == "__main__":
    print("memory:   ", redraw(memory_panel(model="llama-3.1-8b", card="T4"), "rank"))
    print("which one:", redraw(which_one_panel(), "voice"))
