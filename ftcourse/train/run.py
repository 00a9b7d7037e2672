"""The folder of a run: which run it holds, and where that run resumes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.data import Record
from ftcourse.errors import CourseError
from ftcourse.files import write_whole

RUN_FILE = "run.json"
Run = dict[str, Any]
"""``config`` and ``data`` identify a run; a finished one also has ``history``."""


def describe_run(config: FinetuneConfig, records: Sequence[Record]) -> Run:
    """Return what identifies a run: its config, and a fingerprint of its data."""
    text = json.dumps(records, sort_keys=True, default=str)
    chosen = json.loads(json.dumps(asdict(config)))  # as in a file, where tuples are lists
    return {"config": chosen, "data": hashlib.sha256(text.encode()).hexdigest()}


def open_run(folder: Path, run: Run, resume: bool) -> Run:
    """Return what a folder holds of this run, or the run itself if the folder is free.

    Raises CourseError if the folder holds another run, or weights of unknown origin.
    """
    if folder.exists() and not folder.is_dir():
        raise CourseError(
            "A run needs a folder.", f"{folder} is a file", "Give another output_dir."
        )
    found = read_run(folder)
    started = last_checkpoint(folder) is not None or list(folder.glob("*.safetensors"))
    if not started:
        return run
    problem = "; ".join(_differences(found, run)) or ("" if resume else "resume=False")
    if problem:
        raise CourseError(
            "A folder holds one run, and a run is never overwritten.",
            f"{folder} already holds a run: {problem}",
            "Give another output_dir, or the same config and data to resume that run.",
        )
    return found


def _differences(found: Run, run: Run) -> list[str]:
    """Return the differences between two runs, in words."""
    old, new = found.get("config"), run["config"]
    if old is None:
        return [f"its {RUN_FILE} is missing or damaged"]
    changed = [name for name in new if old.get(name) != new[name]]
    other = [f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in changed]
    return other + ["other training data"] * (found.get("data") != run["data"])


def read_run(folder: Path) -> Run:
    """Return the content of run.json; empty if it is missing or damaged."""
    try:
        return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_run(folder: Path, run: Run) -> None:
    """Write run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / RUN_FILE, json.dumps(run, indent=1))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    states = folder.glob("checkpoints/checkpoint-*/trainer_state.json")  # the Trainer's last file
    checkpoints = [state.parent for state in states]
    return max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
