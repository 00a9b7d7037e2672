"""Predicts each rank's bytes of the recorded runs on several cards, beside what was recorded.

    python benchmarks/sharding.py

The arithmetic has no offloading, so such runs are listed with what they would need without it.
"""

from ftcourse.hardware import GIB
from ftcourse.memory.two_cards import two_cards


def main() -> None:
    """Print one line for each recorded run."""
    line = "{:12} {:6} {:5} {:>2} x {:15} {:>5} {:>6} {:>8} {:>10} {:>10} {:>10} {:>6}"
    names = ("model", "method", "how", "", "card", "batch", "tokens", "offload")
    print(line.format(*names, "live", "predicted", "reserved", "share"))
    for run in two_cards():
        predicted = run.predicted.allocated / GIB
        known = run.allocated_gib or run.peak_gib
        share = f"{predicted / known:.2f}" if known and not run.offload else ""
        facts = (run.model, run.method, run.sharding, run.cards, run.card, run.batch_size)
        sizes = (run.allocated_gib or "", f"{predicted:.2f}", run.peak_gib or "")
        print(line.format(*facts, run.max_length, "yes" * run.offload, *sizes, share))


if __name__ == "__main__":
    main()
