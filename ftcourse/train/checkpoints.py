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

from transformers import TrainerCallback

from ftcourse.files import write_whole

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
        if problem := _problem(path, run):
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


class KeepWhole(TrainerCallback):
    """Moves each new checkpoint to its place, and then deletes the run's older ones."""

    def __init__(self, folder: Path, run: str) -> None:
        """Begin with the hidden folder empty; what a stopped run left in it was never whole."""
        self.folder, self.run = folder, run
        self.place = folder / CHECKPOINTS / UNFINISHED
        """Where the Trainer writes."""
        shutil.rmtree(self.place, ignore_errors=True)

    def on_save(self, args, state, control, **_):
        """Make the checkpoint that was just written count."""
        if not state.is_world_process_zero:
            return
        new = self.place / f"checkpoint-{state.global_step}"
        whole = {"run": self.run, "files": list_files(new)}
        write_whole(new / WHOLE_FILE, json.dumps(whole, indent=1))
        place = self.folder / CHECKPOINTS / new.name
        if place.exists():  # one that was passed over
            names = (place.with_name(f"{place.name}.old{n}") for n in count(1))
            place.rename(next(name for name in names if not name.exists()))
        new.rename(place)
        for path in _numbered(self.folder):
            if path != place and not _problem(path, self.run):
                shutil.rmtree(path, ignore_errors=True)
