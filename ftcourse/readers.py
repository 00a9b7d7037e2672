"""Files of records: each place of a file, such as ``line 3``, with what stands there."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftcourse.errors import CourseError

FILES = "Training data is a file of records (.jsonl is best)."
Placed = Iterator[tuple[str, Any]]
"""Where something is in a file, and the record that should be there."""


class Unreadable(str):
    """Stands in the place of a record that cannot be read, and says why."""


def read_file(path: Path) -> Placed:
    """Yield the places of a .jsonl, .json, .csv or .parquet file with their records.

    A place that cannot be read has Unreadable there; the reader goes on behind it where it can.
    Raises CourseError if the file as a whole cannot be read.
    """
    readers = {".jsonl": _read_lines, ".json": _read_json, ".csv": _read_csv}
    read = (readers | {".parquet": _read_parquet}).get(path.suffix.lower())
    if read is None:
        do = "Save it as .jsonl, one JSON object per line; .json, .csv and .parquet work, too."
        raise CourseError(FILES, str(path), do)
    if not path.is_file():
        do = f"Check the path; relative paths start at {Path.cwd()}."
        raise CourseError(FILES, f"{path}: no such file", do)
    try:
        yield from read(path)
    except UnicodeDecodeError as error:
        raise CourseError(FILES, f"{path}: {error}", "Save the file as UTF-8.") from error


def _read_lines(path: Path) -> Placed:
    lines = path.read_text(encoding="utf-8-sig").split("\n")  # Excel's files start with a mark
    for number, line in enumerate(lines, 1):
        if line.strip():
            record, why = _parse(line), "it is no JSON object"
            if not isinstance(record, dict):
                why = record if isinstance(record, Unreadable) else why
                record = Unreadable(f"{line[:60]!r} ({why})")
            yield f"line {number}", record


def _parse(text: str) -> Any:
    """Return what a JSON text says, or why it cannot be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(error)


def _read_json(path: Path) -> Placed:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip()[:1] != "[":
        yield from _read_lines(path)
        return
    records = _parse(text)
    if isinstance(records, Unreadable):
        yield "", records
        return
    yield from ((f"record {number}", record) for number, record in enumerate(records, 1))


def _read_csv(path: Path) -> Placed:
    # Not by datasets: it makes a number of "12" and nothing of "None", and it names no line.
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
    try:
        columns = rows.fieldnames or []
        if not {"prompt", "completion"} <= set(columns) and "text" not in columns:
            yield "line 1", Unreadable(f"no columns prompt and completion, or text, in {columns}")
            return
        for row in rows:
            record = {name: value or None for name, value in row.items()}
            if None in row or None in row.values():
                record = Unreadable(f"not {len(columns)} values between commas")
            yield f"line {rows.line_num}", record
    except csv.Error as error:
        yield f"row from line {rows.line_num + 1}", Unreadable(error)


def _read_parquet(path: Path) -> Placed:
    from datasets import Dataset  # here, because it takes a second to import
    from datasets.exceptions import DatasetsError

    with tempfile.TemporaryDirectory() as folder:  # the user's data stays in no cache
        try:
            rows = Dataset.from_parquet(str(path), cache_dir=folder, keep_in_memory=True).to_list()
        except (DatasetsError, ValueError) as error:
            yield "", Unreadable(error)
            return
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
