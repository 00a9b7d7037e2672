"""Checkpoints that count only when they are whole.

The Trainer writes into a hidden folder. When it is done, we list its files there with their sizes
and digests, and move it to its place in one step. So whatever stops the program, a checkpoint in
its place is whole; and one that somebody damaged later is passed over, and said so.
"""

import hashlib
import json
import re
import shutil
import warnings
from itertools import count
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ftcourse.files import write_whole
from ftcourse.train.processes import from_first, is_first, wait_for_all

CHECKPOINTS = "checkpoints"
UNFINISHED = ".unfinished"
WHOLE_FILE = "whole.json"
"""In each checkpoint: {"run": name of its run, "files": {name: [bytes, SHA-256]}}."""
Listing = dict[str, list]


def list_files(folder: Path) -> Listing:
    """Return bytes and SHA-256 of each file in a folder and in those below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _facts(path) for path in files}


def _facts(path: Path) -> list:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def find_damage(folder: Path, listing: Listing) -> str:
    """Return in words the first file that is not as it was listed; nothing if all are."""
    for name, facts in listing.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != facts[0]:
            return f"{name} has {path.stat().st_size:,} bytes instead of {facts[0]:,}"
        if _facts(path) != facts:
            return f"{name} was changed"
    return ""


def last_checkpoint(folder: Path, run: str) -> Path | None:
    """Return the newest whole checkpoint of a run, or None. Warns about those passed over."""
    for path in sorted(_numbered(folder), key=_step, reverse=True):
        if problem := _problem(path, run) or _problem_of_best(path, run):
            warnings.warn(f"{path} is passed over: {problem}.", stacklevel=2)
        else:
            return path
    return None


def _numbered(folder: Path) -> list[Path]:
    paths = (folder / CHECKPOINTS).glob("checkpoint-*")
    return [path for path in paths if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir()]


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _problem(path: Path, run: str) -> str:
    """Return in words why a checkpoint does not count; nothing if it does."""
    try:
        found = json.loads((path / WHOLE_FILE).read_text(encoding="utf-8"))
        if found["run"] != run:
            return "another run made it"
        return find_damage(path, dict(found["files"]))
    except FileNotFoundError:
        return f"it has no {WHOLE_FILE}, so it may be half written"
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return f"its {WHOLE_FILE} is damaged"


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return what the Trainer knew when it wrote a checkpoint: steps, losses, the best step."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def best_checkpoint(checkpoint: Path) -> Path | None:
    """Return where the checkpoint with the lowest validation loss lies, if there is validation."""
    step = read_state(checkpoint).get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{step}") if step else None


def _problem_of_best(path: Path, run: str) -> str:
    best = best_checkpoint(path)
    problem = _problem(best, run) if best else ""
    return f"{best.name}, the best one before it, does not count: {problem}" if problem else ""


class KeepWhole(TrainerCallback):
    """Moves each new checkpoint to its place, and deletes the older ones, except for the best.

    Of several processes, the first does that, when all have written what is theirs.
    """

    def __init__(self, folder: Path, run: str) -> None:
        """Begin with the hidden folder empty; what a stopped run left in it was never whole."""
        self.folder, self.run = folder, run
        self.place = folder / CHECKPOINTS / UNFINISHED
        """Where the Trainer writes."""
        if is_first():
            shutil.rmtree(self.place, ignore_errors=True)

    def on_train_begin(self, args, state, control, **_):
        """Say where the best checkpoint lies; the Trainer remembers the hidden folder."""
        self._point_at_best(state)

    def _point_at_best(self, state) -> None:
        if step := state.best_global_step:
            state.best_model_checkpoint = str(self.folder / CHECKPOINTS / f"checkpoint-{step}")

    def on_save(self, args, state, control, **_):
        """Make the checkpoint that was just written count."""
        wait_for_all()
        from_first(lambda: self._keep(state.global_step, state.best_global_step))
        self._point_at_best(state)

    def _keep(self, step: int, best: int | None) -> None:
        new = self.place / f"checkpoint-{step}"
        whole = {"run": self.run, "files": list_files(new)}
        write_whole(new / WHOLE_FILE, json.dumps(whole, indent=1))
        place = self.folder / CHECKPOINTS / new.name
        if place.exists():  # one that was passed over
            names = (place.with_name(f"{place.name}.old{n}") for n in count(1))
            place.rename(next(name for name in names if not name.exists()))
        new.rename(place)
        for path in _numbered(self.folder):
            if _step(path) not in (step, best) and not _problem(path, self.run):
                shutil.rmtree(path, ignore_errors=True)
