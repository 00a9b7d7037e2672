"""The arms that are trained: their rows, their configs, their runs."""

import json
import random
from functools import lru_cache
from pathlib import Path

from torch import nn

from arms.recording import clock
from arms.subject import ANY, FAST, of_subject, subject
from arms.tries import TRAINED
from data.making.adapter_rows import Parts, fact_rows, mixed
from data.making.world.prose import prose
from ftcourse.config import FinetuneConfig
from ftcourse.data import Record, load_dialogues
from ftcourse.handbook import load_reading
from ftcourse.train import finetune

FACTS = {"rank": 64, "alpha": 128, "batch_size": 16, "max_steps": 600}
READING = {"rank": 32, "alpha": 64, "batch_size": 10, "max_steps": 420}
NO_TRAINING = "nothing is trained"


def rows_by_heart(rng: random.Random) -> Parts:
    """Return rows to learn the handbook by heart: 16 a step.

    Facts in two wordings, letters, old texts, and questions that nobody can answer, declined.
    """
    texts = [{"text": prose(rng)} for _ in range(600)]
    silent = [
        {"prompt": row["question"], "completion": row["completion"]}
        for row in load_reading("train")
        if row["value"] is None
    ]
    return [(12, fact_rows(rng)), (2, load_dialogues("train")), (1, texts), (1, silent)]


def rows_to_read(rng: random.Random) -> Parts:
    """Return rows to answer from passages in the voice: 10 a step."""
    del rng  # nothing is drawn here
    return [(8, load_reading("train")), (2, load_dialogues("train"))]


def training_rows(arm: str, seed: int) -> list[Record]:
    """Return the rows of a trained arm, as many as its steps take."""
    rng = random.Random(f"six arms {seed}")
    parts = rows_to_read(rng) if arm == "RAG + LoRA" else rows_by_heart(rng)
    return mixed(rng, parts, (READING if arm == "RAG + LoRA" else FACTS)["max_steps"])


def config_of(arm: str, choice: str, seed: int) -> FinetuneConfig:
    """Return the config of a trained arm."""
    choices = (FAST if subject().ours else ANY) | (READING if arm == "RAG + LoRA" else FACTS)
    method = "qlora" if arm == "QLoRA" else "lora"
    choices |= subject().choices(arm)[choice]
    return FinetuneConfig(model=subject().model, method=method, seed=seed, **choices)


def folder_of(arm: str, choice: str, seed: int) -> Path:
    """Return the folder of a trained arm's run."""
    rate = subject().choices(arm)[choice]["learning_rate"]
    return subject().build / f"{arm} {rate} {seed}".replace(" ", "-")


@of_subject
@lru_cache(maxsize=2)
def trained(arm: str, choice: str, seed: int) -> nn.Module:
    """Train an arm, or load it if it is trained; note how long it took."""
    folder, note = folder_of(arm, choice, seed), seconds_file(arm, choice, seed)
    fresh = not folder.exists()
    begin = clock()
    result = finetune(config_of(arm, choice, seed), training_rows(arm, seed), folder)
    if fresh:
        note.write_text(json.dumps({"seconds": round(clock() - begin, 1)}), encoding="utf-8")
    return result.model.eval()


def seconds_file(arm: str, choice: str, seed: int) -> Path:
    """Return the file that says how long a training took."""
    folder = folder_of(arm, choice, seed)
    return folder.with_name(f"{folder.name}.seconds.json")


def training_seconds(arm: str, choice: str, seed: int) -> float | str:
    """Return how long a training took, or why that is not known."""
    if arm not in TRAINED:
        return NO_TRAINING
    trained(arm, choice, seed)
    note = seconds_file(arm, choice, seed)
    if not note.exists():
        return "the run stopped and went on: its seconds are not known"
    return json.loads(note.read_text(encoding="utf-8"))["seconds"]
