"""What is written down: lines of the sweep, answers to read, seconds."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from sweep import Run, sweep

from arms.subject import subject
from ftcourse.data import read_records


def record(settings: Iterable[Run], tasks: dict[str, Callable[..., Run]]) -> list[Run]:
    """Measure each setting that the model's file lacks by its task; return the file's lines."""

    def measure(task: str, **setting: Any) -> Run:
        return tasks[task](**setting) | subject().signature

    return read_records(sweep(subject().name, settings, measure))


def kept(arm: str, seed: int, column: str, texts: list[str]) -> list[str]:
    """Keep answers where somebody can read them; return them."""
    folder = subject().build / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{arm} {seed} {column}".replace(" ", "-")
    (folder / f"{name}.json").write_text(json.dumps(texts, indent=1), encoding="utf-8")
    return texts


def clock() -> float:
    """Return seconds: of this processor, or of the wall where a GPU works."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
