"""Measure whether the learning-rate finder's suggestion is near the best rate of a real sweep.

Run ``PYTHONPATH=. python benchmarks/sweep_finder.py`` from the root; a run that stopped goes on.
``data/measured/README.md`` says what a line holds.
"""

from itertools import product

import torch
from sweep import Run, sweep

from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues
from ftcourse.evaluate import held_out_loss
from ftcourse.finder import find_learning_rate
from ftcourse.loop import draw_batches, train_on
from ftcourse.models import attach_adapter, load_base, load_tokenizer

BATCH, STEPS = 8, 120
RATES = {
    "full": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
    "lora": (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
}
CLOSE = {"full": (5e-4, 1e-3, 2e-3), "lora": (5e-3, 1e-2)}
"""The rates near the best one of the first seed; the others are measured with that seed only."""
TOKENIZER = load_tokenizer("embedded")


def config(method: str, seed: int) -> FinetuneConfig:
    """Return the choices that both tasks share."""
    return FinetuneConfig(
        method=method,
        rank=8,
        alpha=16,
        batch_size=BATCH,
        dtype="float32",
        gradient_checkpointing=False,
        seed=seed,
    )


def measure(task: str, method: str, seed: int, rate: float | None = None) -> Run:
    """Search a rate, or train with one and return the loss on the validation letters."""
    letters = load_dialogues("train")
    if task == "search":
        found = find_learning_rate(config(method, seed), letters)
        return {"rates": found.rates, "losses": found.losses}
    torch.manual_seed(seed)
    model = attach_adapter(load_base(config(method, seed)), config(method, seed))
    train_on(model, draw_batches(encode(letters, TOKENIZER, 512), BATCH, STEPS, seed), rate)
    return {"validation_loss": held_out_loss(model, TOKENIZER, load_dialogues("validation"))}


if __name__ == "__main__":
    settings = [
        {"task": "search", "method": method, "seed": seed}
        for method, seed in product(RATES, range(3))
    ]
    settings += [
        {"task": "train", "method": method, "seed": seed, "rate": rate}
        for seed in range(3)
        for method in RATES
        for rate in (RATES if seed == 0 else CLOSE)[method]
    ]
    sweep("finder", settings, measure)
