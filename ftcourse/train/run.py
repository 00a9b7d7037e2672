"""The folder of a run: which run it holds, and that nobody else's files are in it."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.files import write_whole
from ftcourse.models import weights_fingerprint
from ftcourse.records import Record, taught

RUN_FILE = "run.json"
LOCK, HOLDER = ".lock", ".lock.json"
_IDENTITY = ("config", "data", "base")
_ALSO = ("validation", "processes")  # of runs that have them; older runs keep their names
Run = dict[str, Any]
"""_IDENTITY and _ALSO identify a run; a finished one also has ``history``."""


def describe_run(
    config: FinetuneConfig,
    records: Sequence[Record],
    validation: Sequence[Record] | None = None,
    patience: int | None = None,
    processes: int = 1,
) -> Run:
    """Return what identifies a run: its config, and fingerprints of its data and base weights.

    Records that judge it and the number of processes are in it where they change what it does.
    """
    chosen = json.loads(json.dumps(asdict(config)))  # as in a file, where tuples are lists
    run = {"config": chosen, "data": _digest(records), "base": weights_fingerprint(config.model)}
    if validation is not None:
        run["validation"] = {"data": _digest(validation), "patience": patience}
    return run | ({"processes": processes} if processes > 1 else {})


def _digest(records: Sequence[Record]) -> str:
    text = json.dumps([taught(record) for record in records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def run_name(run: Run) -> str:
    """Return a short name that only this run has; its checkpoints bear it."""
    identity = [run[name] for name in _IDENTITY] + [[n, run[n]] for n in _ALSO if n in run]
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_run(folder: Path, run: Run, resume: bool) -> Run:
    """Return what a folder holds of this run, or the run itself if the folder is free.

    Raises CourseError if the folder holds another run, or anything that is no run of ours.
    """
    if folder.exists() and not folder.is_dir():
        raise CourseError(
            "A run needs a folder.", f"{folder} is a file", "Give another output_dir."
        )
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    names = [name for name in names if name not in (LOCK, HOLDER) and not _is_part(name)]
    found = read_run(folder)
    if not names:
        return run
    if not found:
        damaged = f"; its {RUN_FILE} is damaged, or not ours" if RUN_FILE in names else ""
        raise CourseError(
            "A run's folder is new or empty, or it holds that very run.",
            f"{folder} holds {', '.join(names[:4])}{', ...' * (len(names) > 4)}{damaged}",
            "Give another output_dir; nothing in this one was touched.",
        )
    problem = "; ".join(_differences(found, run)) or ("" if resume else "resume=False")
    if not problem:
        return found
    if {*names} <= {RUN_FILE, "checkpoints"} and not list(folder.glob("checkpoints/[!.]*")):
        return run  # one that stopped before its first checkpoint left nothing to keep
    raise CourseError(
        "A folder holds one run, and a run is never overwritten.",
        f"{folder} already holds a run: {problem}",
        "Give another output_dir, or the same config and data to resume that run.",
    )


def _is_part(name: str) -> bool:
    """Whether a name is that of a half-written file of ours, which a kill left behind."""
    ours = "|".join(map(re.escape, (RUN_FILE, HOLDER)))
    return re.fullmatch(rf"\.({ours})\.[0-9a-f]{{32}}\.part", name) is not None


def _differences(found: Run, run: Run) -> list[str]:
    """Return the differences between two runs, in words."""
    old, new = found["config"], run["config"]
    changed = [name for name in new if old.get(name) != new[name]]
    words = [f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in changed]
    words += ["other training data"] * (found["data"] != run["data"])
    base_changed = found.get("base") != run["base"] and "model" not in changed
    words += ["other weights in the base model"] * base_changed
    judged, judge = found.get("validation"), run.get("validation")
    words += ["another validation set, or another patience"] * (judged != judge)
    before, now = found.get("processes", 1), run.get("processes", 1)
    running = "history" not in found  # a finished run can be loaded by any number of processes
    return words + [f"processes was {before}, now {now}"] * (running and before != now)


def read_run(folder: Path) -> Run:
    """Return the content of run.json; empty if it is missing, damaged, or another program's."""
    try:
        found = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        ours = isinstance(found["config"], dict) and isinstance(found["data"], str)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return found if ours else {}


def write_run(folder: Path, run: Run) -> None:
    """Write run.json."""
    write_whole(folder / RUN_FILE, json.dumps(run, indent=1))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if necessary.

    The operating system gives the lock back when its process ends, however it ends. Of several
    processes that train one model together, the first locks for all.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CourseError(
            "One run at a time works in a folder.",
            f"{folder} is in use by {_holder(folder)}",
            "Wait until it ends, or give another output_dir.",
        ) from None
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        write_whole(folder / HOLDER, json.dumps({"process": os.getpid(), "since": started}))
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()
        if new and [path.name for path in folder.iterdir()] in ([], [LOCK]):
            (folder / LOCK).unlink(missing_ok=True)  # nothing was trained: leave no trace
            folder.rmdir()


def _holder(folder: Path) -> str:
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {found['process']}, since {found['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
