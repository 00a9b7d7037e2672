"""From a file of records to the trainer's batches: tokens, with the supervised ones marked.

A record is a dictionary, in one of three forms:

- ``{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}``
- ``{"prompt": "a question", "completion": "its answer"}``
- ``{"text": "plain text"}``, all of it supervised: what a model should not forget while it learns
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
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ftcourse.chat import IGNORED, Example, Message, encode_dialogue, encode_text
from ftcourse.errors import CourseError
from ftcourse.files import course_path

Record = dict[str, Any]


def load_records(path: str | Path) -> list[Record]:
    """Return the records of a .jsonl, .json, .csv or .parquet file, without empty values.

    A .json file holds a list of records, or lines as in JSONL. A .csv file starts with the names of
    its columns, and its values stay text. Raises CourseError with the file, and the line if known.
    """
    path, must = Path(path), "Training data is a .jsonl, .json, .csv or .parquet file of records."
    readers = {".jsonl": read_records, ".json": _read_json, ".csv": _read_csv}
    read = (readers | {".parquet": _read_parquet}).get(path.suffix.lower())
    if read is None:
        raise CourseError(must, str(path), "Save it as .jsonl: one JSON object per line.")
    if not path.is_file():
        do = f"Check the path; relative paths start at {Path.cwd()}."
        raise CourseError(must, f"{path}: no such file", do)
    try:
        records = list(read(path))
    except UnicodeDecodeError as error:
        raise CourseError(must, f"{path}: {error}", "Save the file as UTF-8.") from error
    except ValueError as error:
        do = "Correct it there; json.dumps(record) writes a valid line of JSONL."
        raise CourseError(must, f"{path}, {error}", do) from error
    return as_records(records)


def read_records(path: Path) -> list[Record]:
    """Return the records of a JSONL file. Raises ValueError with the number of a wrong line."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")  # Excel's files start with a mark
    return [_parse(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _parse(line: str, number: int) -> Record:
    try:
        record, problem = json.loads(line), "it is no JSON object"
    except json.JSONDecodeError as error:
        record, problem = None, error
    if not isinstance(record, dict):
        raise ValueError(f"line {number}: {line[:60]!r} ({problem})")
    return record


def _read_json(path: Path) -> Iterable[Record]:
    text = path.read_text(encoding="utf-8-sig")
    return json.loads(text) if text.lstrip()[:1] == "[" else read_records(path)


def _read_csv(path: Path) -> Iterator[Record]:
    # Not by datasets: it makes a number of "12" and nothing of "None", and it names no line.
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
    try:
        columns = rows.fieldnames or []
        if not {"prompt", "completion"} <= set(columns) and "text" not in columns:
            raise ValueError(f"line 1: no columns prompt and completion, or text, in {columns}")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"line {rows.line_num}: not {len(columns)} values between commas")
            yield {name: value or None for name, value in row.items()}
    except csv.Error as error:
        raise ValueError(f"row from line {rows.line_num + 1}: {error}") from error


def _read_parquet(path: Path) -> list[Record]:
    from datasets import Dataset  # here, because it takes a second to import
    from datasets.exceptions import DatasetsError

    with tempfile.TemporaryDirectory() as folder:  # the user's data stays in no cache
        try:
            return Dataset.from_parquet(str(path), cache_dir=folder, keep_in_memory=True).to_list()
        except DatasetsError as error:
            raise ValueError(error) from error


def as_records(data: Iterable[Record]) -> list[Record]:
    """Return dictionaries, or the rows of a ``datasets.Dataset``, without empty values.

    A Dataset has the same columns in every row: None stands where a record has no value.
    """
    rows = list(data)
    strange = [row for row in rows if not isinstance(row, Mapping)]
    if strange:
        raise CourseError(
            "Training data is a list of records (dictionaries), or a datasets.Dataset.",
            f"an item of type {type(strange[0]).__name__}: {str(strange[0])[:60]!r}",
            'Read a file with load_records(path); take one split, as in dataset["train"].',
        )
    return _without_none(rows)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def load_dialogues(split: str, voice: str = "brand") -> list[Record]:
    """Return the support desk's dialogues, answered in the ``brand`` or the ``neutral`` voice.

    ``split`` is ``train``, ``validation`` or ``test``. Both answers give a record's ``reason`` and
    ``step`` (the advice), word for word.
    """
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
    """Return a record's dialogue as chat messages. Raises CourseError if it has no answer."""
    messages = record.get("messages")
    if messages is None:
        pairs = (("user", record.get("prompt")), ("assistant", record.get("completion")))
        messages = [{"role": role, "content": content} for role, content in pairs if content]
    answers = [m for m in messages if m.get("role") == "assistant" and m.get("content")]
    if answers and len(messages) > 1:
        return messages
    raise CourseError(
        "A record has 'prompt' and 'completion', or 'messages' with an answer, or 'text'.",
        f"no answer in {str(record)[:80]}" if messages else f"keys {', '.join(record)}",
        "Add the assistant's answer: the model learns from it.",
    )


def _encode(record: Record, tokenizer: PreTrainedTokenizerBase) -> Example:
    if isinstance(record.get("text"), str) and record["text"].strip():
        return encode_text(record["text"], tokenizer)
    return encode_dialogue(to_messages(record), tokenizer)


def encode(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """Return the records as token ids, cut to ``max_length``: answers and plain text supervised.

    Warns about records that are left out because their answer begins after ``max_length``. Raises
    CourseError if no record is left.
    """
    whole = [_encode(record, tokenizer) for record in records]
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
