"""The folder of a run: what makes a run the same run, and where it goes on after a stop."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError

RUN_FILE = "run.json"
Run = dict[str, Any]
"""``config`` and ``data`` say which run it is; a finished one also has ``history``."""


def describe_run(config: FinetuneConfig, data: Iterable[dict[str, Any]]) -> Run:
    """Return what makes a run the same run: its config, and a fingerprint of its data."""
    text = json.dumps([dict(record) for record in data], sort_keys=True)
    chosen = json.loads(json.dumps(asdict(config)))  # as a file gives it back: tuples are lists
    return {"config": chosen, "data": hashlib.sha256(text.encode()).hexdigest()}


def open_run(folder: Path, run: Run, resume: bool) -> Run:
    """Return the run that a folder holds, if it is this one, or this one if the folder is free.

    Raises CourseError if the folder holds another run, or weights that no run of ours wrote.
    """
    if folder.exists() and not folder.is_dir():
        raise CourseError(
            "A run is kept in a folder.", f"{folder} is a file", "Give another output_dir."
        )
    found = read_run(folder)
    started = last_checkpoint(folder) is not None or list(folder.glob("*.safetensors"))
    if not started:
        return run
    problem = "; ".join(_differences(found, run)) or ("" if resume else "resume=False")
    if problem:
        raise CourseError(
            "A folder holds one run, and a run is never overwritten.",
            f"{folder} holds a run already: {problem}",
            "Give another output_dir, or the same config and data to go on with that run.",
        )
    return found


def _differences(found: Run, run: Run) -> list[str]:
    """Return in words where two runs differ."""
    old, new = found.get("config"), run["config"]
    if old is None:
        return [f"its {RUN_FILE} is missing or damaged"]
    changed = [name for name in new if old.get(name) != new[name]]
    other = [f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in changed]
    return other + ["other training data"] * (found.get("data") != run["data"])


def read_run(folder: Path) -> Run:
    """Return what the folder's run.json says; empty if there is none that can be read."""
    try:
        return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_run(folder: Path, run: Run) -> None:
    """Write run.json whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{RUN_FILE}.part"
    draft.write_text(json.dumps(run, indent=1), encoding="utf-8")
    os.replace(draft, folder / RUN_FILE)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written whole, or None."""
    states = folder.glob("checkpoints/checkpoint-*/trainer_state.json")  # the Trainer's last file
    checkpoints = [state.parent for state in states]
    return max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
