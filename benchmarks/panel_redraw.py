"""Milliseconds that the memory panel takes to answer a slider, in the kernel.

Run ``python benchmarks/panel_redraw.py``. The browser's own time is not in it.
"""

import statistics
import time

from ftcourse.widgets.memory import memory_panel

MOVES = 50


def main() -> None:
    """Move a slider up and down and print the median and the slowest redraw."""
    panel = memory_panel(model="llama-3.1-8b", card="T4")
    slider = panel.controls["rank"]
    times = []
    for move in range(MOVES):
        begin = time.perf_counter()
        slider.value = slider.options[1 + move % (len(slider.options) - 1)]
        times.append(1000 * (time.perf_counter() - begin))
    print(f"median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms, {MOVES} redraws")


if __name__ == "__main__":
    main()
