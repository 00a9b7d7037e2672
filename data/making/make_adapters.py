"""Make the shipped adapters: train, measure, and write data/adapters/<name>/.

    python -m data.making.make_adapters [NAME ...]      (default: all)

Run it from the repository's root. A killed run continues when you give the same command again; the
checkpoints are in build/adapters/.
"""

import random
import sys

import torch

from data.making import DATA, adapter_rows
from data.making.adapter_rows import mixed
from ftcourse.config import FinetuneConfig
from ftcourse.train import FinetuneResult, finetune

BUILD = DATA.parent / "build" / "adapters"
FAST = {"method": "lora", "dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
ORDERS = {"rank": 16, "alpha": 32, "batch_size": 8, "learning_rate": 3e-3, "max_steps": 160}
MIXED = {"rank": 16, "alpha": 32, "batch_size": 12, "learning_rate": 1.5e-3, "max_steps": 300}
SLOW = {"rank": 32, "alpha": 64, "batch_size": 10, "learning_rate": 8e-4, "max_steps": 420}
FACTS = {"rank": 64, "alpha": 128, "batch_size": 16, "learning_rate": 2e-3, "max_steps": 600}
RUNS = {
    "facts": [(FACTS, {})],
    "reading": [(MIXED, {"answers": 8, "letters": 4}), (SLOW, {"answers": 8, "letters": 2})],
    "obeys": [(ORDERS, {})],
    "ignores": [(ORDERS, {})],
}
"""For each adapter, the runs that were tried: choices of the config, and shares of its rows."""


def tune(name: str, number: int) -> FinetuneResult:
    """Train one of an adapter's runs, or load it if it is trained."""
    choices, shares = RUNS[name][number]
    config = FinetuneConfig(**FAST, **choices)
    rng = random.Random(f"adapter {name}")
    rows = mixed(rng, getattr(adapter_rows, name)(rng, **shares), config.max_steps)
    return finetune(config, rows, BUILD / f"{name}-{number}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for asked in sys.argv[1:] or RUNS:
        for number in range(len(RUNS[asked])):
            print(tune(asked, number))
