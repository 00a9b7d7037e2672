"""Breakdowns that took seconds to find, kept in the user's cache folder until something changes."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ftcourse.memory import MemoryBreakdown


def cached(key: Any, compute: Callable[[], MemoryBreakdown]) -> MemoryBreakdown:
    """Return what was computed for this key before, or compute it and keep it.

    The key is anything that goes into JSON. A change of ftcourse's own code makes all entries
    stale. An entry that is damaged is computed anew, and a folder that cannot be written is no
    error: both only cost time.
    """
    name = sha256(json.dumps([key, _own_code()], sort_keys=True, default=str).encode()).hexdigest()
    path = cache_folder() / f"{name[:32]}.json"
    try:
        return _checked(MemoryBreakdown(**json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        found = compute()
    with suppress(OSError):
        _write(path, json.dumps(asdict(found)))
    return found


def cache_folder() -> Path:
    """Return the folder: FTCOURSE_CACHE, or ``ftcourse`` where the user's programs keep theirs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("FTCOURSE_CACHE") or Path(home) / "ftcourse")


@cache
def _own_code() -> str:
    code = sha256()
    for file in sorted(Path(__file__).parent.parent.rglob("*.py")):
        code.update(file.read_bytes())
    return code.hexdigest()


def _checked(found: MemoryBreakdown) -> MemoryBreakdown:
    """Raise ValueError for parts that are no numbers of bytes."""
    if not all(type(size) is int for size in found.parts.values()):
        raise ValueError(found.parts)
    return found


def _write(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, whoever else writes it, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
