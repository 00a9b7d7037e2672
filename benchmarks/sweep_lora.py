"""Measure LoRA on two tasks, over ranks, placements, scales, learning rates and seeds.

Run ``PYTHONPATH=. python benchmarks/sweep_lora.py`` from the root; a run that stopped goes on. The
voice is 80 steps of 8 letters, the facts are 240 steps of 16 closed-book questions. The adapter is
ours, which equals peft's bit for bit. The learning rate is chosen with seed 0, and the other seeds
have that rate only. ``data/measured/README.md`` says what a line holds.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from sweep import Run, sweep

from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues
from ftcourse.evaluate import advice_score, answer_all, held_out_loss
from ftcourse.handbook import fact_score, load_questions
from ftcourse.loop import draw_batches, train_on
from ftcourse.lora import inject_lora, target_linears
from ftcourse.models import load_base, load_tokenizer
from ftcourse.sweeps import load_sweep, select
from ftcourse.voice import voice_score

RANKS = (1, 2, 4, 8, 16, 64)
SEEDS = (0, 1, 2)
STEPS = {"voice": (80, 8), "facts": (240, 16)}
RATES = (2e-3, 5e-3, 1e-2, 2e-2)
LOW_RANK_RATES = (5e-3, 1e-2, 2e-2, 5e-2)
HIGH_RANK_RATES = (1e-3, *RATES)
RANK_RATES = {1: LOW_RANK_RATES, 2: LOW_RANK_RATES, 4: LOW_RANK_RATES, 64: HIGH_RANK_RATES}
FULL_RATES = (1e-3, 2e-3, 4e-3)
ALPHA_RATES = {16: (5e-3, 1e-2, 2e-2), 512: (5e-4, 1e-3, 2e-3, 5e-3)}
# Each at the rate that was best with fewer steps; the voice at rank 1 also at half of that rate.
LONGER = (
    ("facts", 1, 1e-2, 960, SEEDS),
    ("facts", 0, 2e-3, 960, (0,)),
    ("facts", 64, 2e-3, 960, (0,)),
    ("facts", 8, 5e-3, 960, (0,)),
    ("facts", 1, 1e-2, 480, (0,)),
    ("voice", 1, 1e-2, 320, SEEDS),
    ("voice", 1, 2e-2, 320, (0,)),
    ("voice", 0, 2e-3, 320, SEEDS),
)
ALL, QV = "all-linear", ("q_proj", "v_proj")
tokenizer = load_tokenizer("embedded")


def measure(task: str, method: str, rank: int, alpha: float, targets: list | str, **run) -> Run:
    """Train one model and judge it on what it was not trained on."""
    model = load_base(FinetuneConfig(model="embedded", method="full", dtype="float32"))
    torch.manual_seed(run["seed"])
    if method == "lora":
        inject_lora(model, targets, rank, alpha)
    else:  # the same modules as all-linear, so that the whole update is in matrices
        trained = target_linears(model).values()
        model.requires_grad_(False)
        for module in trained:
            module.requires_grad_(True)
    steps, batch_size = STEPS[task]
    steps = run.get("steps", steps)
    records = load_dialogues("train") if task == "voice" else questions(0) + questions(1)
    batches = draw_batches(encode(records, tokenizer, 512), batch_size, steps, run["seed"])
    losses = train_on(model, batches, run["learning_rate"])
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = {"parameters": parameters, "training_loss": round(sum(losses[-10:]) / 10, 4)}
    return found | JUDGES[task](model)


def questions(wording: int) -> list[Run]:
    """Return the 239 closed-book questions in one wording."""
    return load_questions(passages=False, wording=wording)


def judge_voice(model: torch.nn.Module) -> Run:
    """Return the loss on letters for choosing and on letters for reporting, and two scores."""
    test = load_dialogues("test")[:100]
    answers = answer_all(model, tokenizer, test)
    return {
        "validation_loss": round(held_out_loss(model, tokenizer, validation()), 4),
        "test_loss": round(held_out_loss(model, tokenizer, test), 4),
        "voice": voice_score(answers).successes,
        "advice": advice_score(answers, test).successes,
    }


def validation() -> list[Run]:
    """Return the letters on which the learning rate is chosen."""
    return load_dialogues("validation")[:100]


def judge_facts(model: torch.nn.Module) -> Run:
    """Return how many facts are right in a wording that was not trained, by halves.

    The first half, the questions with even numbers, is for choosing the learning rate.
    """
    asked = questions(2)
    answers = answer_all(model, tokenizer, asked)
    halves = {"validation": slice(0, None, 2), "test": slice(1, None, 2)}
    return {
        f"recall_{name}": round(fact_score(answers[half], asked[half]).share, 4)
        for name, half in halves.items()
    }


JUDGES = {"voice": judge_voice, "facts": judge_facts}


def kinds() -> Iterator[tuple[Run, Sequence[float]]]:
    """Yield each setting but rate and seed, and the learning rates that are tried for it."""
    names = ("task", "method", "rank", "alpha", "targets")
    for rank, task in product(RANKS, STEPS):
        rates = RANK_RATES.get(rank, RATES)  # so that the best one is not at an end
        yield dict(zip(names, (task, "lora", rank, 2 * rank, ALL), strict=True)), rates
    for task in STEPS:
        yield dict(zip(names, (task, "lora", 40, 80, list(QV)), strict=True)), RATES
        yield dict(zip(names, (task, "full", 0, 0, ALL), strict=True)), FULL_RATES
    for alpha, rates in ALPHA_RATES.items():
        yield dict(zip(names, ("voice", "lora", 64, alpha, ALL), strict=True)), rates


def best_rate(kind: Run) -> float:
    """Return the rate that seed 0 does best with, on what is for choosing; if equal, the lower."""
    runs = select(load_sweep("lora"), **kind, seed=0, steps=None)
    runs.sort(key=lambda run: run["learning_rate"])
    if kind["task"] == "facts":
        return max(runs, key=lambda run: run["recall_validation"])["learning_rate"]
    return min(runs, key=lambda run: run["validation_loss"])["learning_rate"]


def settings() -> Iterator[Run]:
    """Yield seed 0 with all rates."""
    for kind, rates in kinds():
        for rate in rates:
            yield kind | {"learning_rate": rate, "seed": 0}


def other_seeds() -> Iterator[Run]:
    """Yield each setting with its best rate and the other seeds, and what an exercise shows."""
    for seed in SEEDS[1:]:
        for kind, _ in kinds():
            yield kind | {"learning_rate": best_rate(kind), "seed": seed}
    kind = {"task": "voice", "method": "lora", "alpha": 16, "targets": ALL, "learning_rate": 2e-3}
    for seed, rank in product(SEEDS, (8, 64)):  # two ranks with one alpha and one rate
        yield kind | {"rank": rank, "seed": seed}


def longer() -> Iterator[Run]:
    """Yield runs of four times the steps, and for rank 1 of twice the steps."""
    at_rank = {rank: ("lora", rank, 2 * rank) for rank in (1, 8, 64)} | {0: ("full", 0, 0)}
    for task, rank, rate, steps, seeds in LONGER:
        method, rank, alpha = at_rank[rank]
        kind = {"task": task, "method": method, "rank": rank, "alpha": alpha, "targets": ALL}
        for seed in seeds:
            yield kind | {"learning_rate": rate, "seed": seed, "steps": steps}


if __name__ == "__main__":
    sweep("lora", settings(), measure)
    sweep("lora", other_seeds(), measure)
    sweep("lora", longer(), measure)
