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
CHOICES = {
    "facts": {"rank": 64, "alpha": 128, "batch_size": 16, "learning_rate": 2e-3, "max_steps": 600},
}


def tune(name: str) -> FinetuneResult:
    """Train one adapter, or load it if it is trained."""
    config = FinetuneConfig(**FAST, **CHOICES[name])
    rng = random.Random(f"adapter {name}")
    rows = mixed(rng, getattr(adapter_rows, name)(rng), config.max_steps)
    return finetune(config, rows, BUILD / name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for asked in sys.argv[1:] or CHOICES:
        print(tune(asked))
