"""From a file of records to the trainer's batches: tokens, with the supervised ones marked.

``ftcourse/records.py`` says what a record is.
"""

import csv
import io
import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ftcourse.chat import IGNORED, Example, Message, encode_dialogue, encode_text
from ftcourse.errors import CourseError, check_choice
from ftcourse.files import course_path, user_path
from ftcourse.records import Record, find_problem, taught

Placed = Iterator[tuple[str, Any]]
"""Where something is in a file, such as ``line 3``, and the record that should be there."""


def load_records(path: str | Path) -> list[Record]:
    """Return the records of a .jsonl, .json, .csv or .parquet file, without empty values.

    A .json file holds a list of records, or lines as in JSONL. A .csv file starts with the names of
    its columns, and its values stay text. Raises CourseError with the file and the line.
    """
    path, must = user_path(path), "Training data is a file of records (.jsonl is best)."
    readers = {".jsonl": _read_lines, ".json": _read_json, ".csv": _read_csv}
    read = (readers | {".parquet": _read_parquet}).get(path.suffix.lower())
    if read is None:
        do = "Save it as .jsonl, one JSON object per line; .json, .csv and .parquet work, too."
        raise CourseError(must, str(path), do)
    if not path.is_file():
        do = f"Check the path; relative paths start at {Path.cwd()}."
        raise CourseError(must, f"{path}: no such file", do)
    try:
        return [checked(record, f"{path}, {place}") for place, record in read(path)]
    except UnicodeDecodeError as error:
        raise CourseError(must, f"{path}: {error}", "Save the file as UTF-8.") from error
    except CourseError:
        raise
    except ValueError as error:
        do = "Correct it there; json.dumps(record) writes a valid line of JSONL."
        raise CourseError(must, f"{path}, {error}", do) from error


def as_records(data: Iterable[Record]) -> list[Record]:
    """Return dictionaries, or the rows of a ``datasets.Dataset``, without empty values.

    A Dataset has the same columns in every row: None stands where a record has no value. Raises
    CourseError for anything else, with the number of the record.
    """
    if isinstance(data, str | Path | bytes | Mapping) or not isinstance(data, Iterable):
        raise CourseError(
            "Training data is a list of records (dictionaries), or a datasets.Dataset.",
            f"an object of type {type(data).__name__}: {str(data)[:60]!r}",
            'Read a file with load_records(path); take one split, as in dataset["train"].',
        )
    return [checked(record, f"record {number}") for number, record in enumerate(data, 1)]


def checked(record: Any, place: str) -> Record:
    """Return a record without empty values. Raises CourseError if a model cannot learn from it."""
    if not isinstance(record, Mapping):
        problem = f"an item of type {type(record).__name__}: {str(record)[:60]!r}"
        do = 'Read a file with load_records(path); take one split, as in dataset["train"].'
    else:
        problem = find_problem(dict(record))
        do = "Correct it there: all is text, none is empty, and the model learns from the answer."
    if problem:
        raise CourseError(
            "A record has 'prompt' and 'completion', or 'messages' with an answer, or 'text'.",
            f"{place}: {problem}",
            do,
        )
    return {key: value for key, value in record.items() if value is not None} | taught(record)


def read_records(path: Path) -> list[Record]:
    """Return the records of one of the course's own JSONL files."""
    return [record for _, record in _read_lines(path)]


def _read_lines(path: Path) -> Placed:
    """Yield the JSON object of each line. Raises ValueError with the number of a wrong one."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")  # Excel's files start with a mark
    for number, line in enumerate(lines, 1):
        if line.strip():
            record, problem = _parse(line), "it is no JSON object"
            if not isinstance(record, dict):
                said = f"{line[:60]!r} ({record if isinstance(record, Exception) else problem})"
                raise ValueError(f"line {number}: {said}")
            yield f"line {number}", record


def _parse(text: str) -> Any:
    """Return what a JSON text says, or the error that reading it raised."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def _read_json(path: Path) -> Placed:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip()[:1] != "[":
        yield from _read_lines(path)
        return
    records = _parse(text)
    if isinstance(records, Exception):
        raise ValueError(str(records)) from records
    yield from ((f"record {number}", record) for number, record in enumerate(records, 1))


def _read_csv(path: Path) -> Placed:
    # Not by datasets: it makes a number of "12" and nothing of "None", and it names no line.
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
    try:
        columns = rows.fieldnames or []
        if not {"prompt", "completion"} <= set(columns) and "text" not in columns:
            raise ValueError(f"line 1: no columns prompt and completion, or text, in {columns}")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"line {rows.line_num}: not {len(columns)} values between commas")
            yield f"line {rows.line_num}", {name: value or None for name, value in row.items()}
    except csv.Error as error:
        raise ValueError(f"row from line {rows.line_num + 1}: {error}") from error


def _read_parquet(path: Path) -> Placed:
    from datasets import Dataset  # here, because it takes a second to import
    from datasets.exceptions import DatasetsError

    with tempfile.TemporaryDirectory() as folder:  # the user's data stays in no cache
        try:
            rows = Dataset.from_parquet(str(path), cache_dir=folder, keep_in_memory=True).to_list()
        except DatasetsError as error:
            raise ValueError(error) from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


def load_dialogues(split: str, voice: str = "brand") -> list[Record]:
    """Return the support desk's dialogues, answered in the ``brand`` or the ``neutral`` voice.

    ``split`` is ``train``, ``validation`` or ``test``. Both answers give a record's ``reason`` and
    ``step`` (the advice), word for word.
    """
    check_choice("split", split, ("train", "validation", "test"))
    check_choice("voice", voice, ("brand", "neutral"))
    return [
        {
            "prompt": record["customer"],
            "completion": record[voice],
            "reason": record["brand"].partition(" Your next step:")[0].rpartition(". ")[2],
            "step": record["step"],
        }
        for record in read_records(course_path(f"data/dialogues/{split}.jsonl"))
    ]


def to_messages(record: Record) -> list[Message]:
    """Return a record's dialogue as chat messages. Raises CourseError if it is none."""
    record = checked(record, "a record")
    pairs = (("user", record.get("prompt")), ("assistant", record.get("completion")))
    return record.get("messages") or [{"role": role, "content": text} for role, text in pairs]


def _encode(record: Record, tokenizer: PreTrainedTokenizerBase, number: int) -> Example:
    record = checked(record, f"record {number}")
    if "text" in taught(record):
        return encode_text(record["text"], tokenizer)
    try:
        return encode_dialogue(to_messages(record), tokenizer)
    except TemplateError as error:
        raise CourseError(
            "A model's chat template can write every dialogue of the data.",
            f"record {number}: {error}",
            "Many templates want user and assistant in turn, and no system message.",
        ) from error


def encode(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """Return the records as token ids, cut to ``max_length``: answers and plain text supervised.

    Warns about records that are left out because their answer begins after ``max_length``. Raises
    CourseError if no record is left.
    """
    whole = [_encode(record, tokenizer, number) for number, record in enumerate(records, 1)]
    cut = [Example(e.input_ids[:max_length], e.labels[:max_length]) for e in whole]
    kept = [example for example in cut if example.num_supervised]
    if not kept:
        longest = max((len(example.input_ids) for example in whole), default=0)
        raise CourseError(
            "The data holds at least one answer token to learn from.",
            f"{len(whole)} records, none with an answer within max_length={max_length}",
            f"Raise max_length towards {longest}." if whole else "Give at least one record.",
        )
    if len(kept) < len(whole):
        warnings.warn(
            f"{len(whole) - len(kept)} of {len(whole)} records are left out: their answer begins "
            f"after max_length={max_length} tokens.",
            stacklevel=2,
        )
    return kept


def pad_batch(examples: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Return examples as ``input_ids`` and ``labels`` of shape (batch, longest), padded right.

    There is no attention mask, and none is needed: a causal model never looks to the right, where
    the padding is, and the loss ignores it. So attention can take its fast path.
    """
    rows = {name: [torch.tensor(e[name]) for e in examples] for name in ("input_ids", "labels")}
    padding = {"input_ids": 0, "labels": IGNORED}
    return {n: pad_sequence(rows[n], batch_first=True, padding_value=padding[n]) for n in rows}
