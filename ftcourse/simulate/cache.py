"""Breakdowns that took seconds to compute, kept in the user's cache folder until code changes."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from ftcourse.files import write_whole
from ftcourse.memory import MemoryBreakdown
from ftcourse.memory.ledger import Ledger, Row


def cached(key: Any, compute: Callable[[], MemoryBreakdown]) -> MemoryBreakdown:
    """Return what was computed for this key before, or compute it and keep it.

    The key is anything that JSON can hold. A change of ftcourse's own code makes all entries stale.
    A damaged entry, or a folder that cannot be written, is no error: it only costs time.
    """
    name = sha256(json.dumps([key, _own_code()], sort_keys=True, default=str).encode()).hexdigest()
    path = cache_folder() / f"{name[:32]}.json"
    try:
        return _from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        found = compute()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(found)))
    return found


def cache_folder() -> Path:
    """Return the cache folder: FTCOURSE_CACHE, or the one that this system has for ftcourse."""
    chosen = os.environ.get("FTCOURSE_CACHE")
    return Path(chosen) if chosen else user_cache_path("ftcourse", appauthor=False)


@cache
def _own_code() -> str:
    code = sha256()
    for file in sorted(Path(__file__).parent.parent.rglob("*.py")):
        code.update(file.read_bytes())
    return code.hexdigest()


def _from_json(text: str) -> MemoryBreakdown:
    """Return the breakdown of an entry. Raises ValueError or TypeError for a damaged one."""
    values = json.loads(text)
    rows = [Row(**{**row, "shape": tuple(row["shape"])}) for row in values.pop("ledger")]
    found = MemoryBreakdown(**values, ledger=Ledger(rows))
    if not all(type(size) is int for size in found.parts.values()):
        raise ValueError(found.parts)
    return found
