"""What the sweeps share: each setting is measured once, and a sweep that stopped goes on.

A sweep's script gives a list of settings and a function that measures one of them. Each line of
``data/measured/sweep_<name>.jsonl`` is a setting with its results, the seed, CPU seconds, device,
date and versions. Lines are only added.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ftcourse.hardware import detect

MEASURED = Path(__file__).parent.parent / "data" / "measured"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
Run = dict[str, Any]


def sweep(name: str, settings: Iterable[Run], measure: Callable[..., Run]) -> Path:
    """Measure each setting that the file lacks, and add a line for it; return the file."""
    torch.set_num_threads(1)  # so that CPU seconds mean the same on every machine
    path, settings = MEASURED / f"sweep_{name}.jsonl", list(settings)
    done = _done(path, settings)
    for setting in tqdm([each for each in settings if each not in done], name):
        begin = time.process_time()
        results = measure(**setting)
        seconds = {"cpu_seconds": round(time.process_time() - begin, 1)}
        line = json.dumps(setting | results | seconds | where())
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    return path


def _done(path: Path, settings: list[Run]) -> list[Run]:
    """Return the settings that the file has, without their results."""
    if not path.exists():
        return []
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [each for each in settings if any(each.items() <= run.items() for run in runs)]


def where() -> Run:
    """Return where and when something was measured, and with which libraries."""
    card = detect()
    device = card.name if card.device == "cuda" else f"CPU, 1 thread, {platform.machine()}"
    versions = {library: version(library) for library in LIBRARIES}
    return {"device": device, "date": date.today().isoformat(), "versions": versions}
