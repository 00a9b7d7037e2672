"""From records to the trainer's batches: tokens, with the supervised ones marked.

``ftcourse/records.py`` says what a record is, ``ftcourse/readers.py`` reads files of them.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
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
from ftcourse.readers import FILES, Unreadable, read_file
from ftcourse.records import Record, problem_of, renaming, taught


def load_records(path: str | Path) -> list[Record]:
    """Return the records of a .jsonl, .json, .csv or .parquet file, without empty values.

    A .json file holds a list of records, or lines as in JSONL. A .csv file starts with the names of
    its columns, and its values stay text. Raises CourseError with the file and the line; all of
    them at once are what ``audit.find_problems`` gives.
    """
    path = user_path(path)
    return [checked(record, f"{path}, {place}") for place, record in read_file(path)]


def as_records(data: Iterable[Record]) -> list[Record]:
    """Return dictionaries, or the rows of a ``datasets.Dataset``, without empty values.

    A Dataset has the same columns in every row: None stands where a record has no value. Raises
    CourseError for anything else, with the number of the record.
    """
    check_data(data)
    return [checked(record, f"record {number}") for number, record in enumerate(data, 1)]


def check_data(data: object) -> None:
    """Refuse what is no list of records, and no Dataset."""
    if isinstance(data, str | Path | bytes | Mapping) or not isinstance(data, Iterable):
        raise CourseError(
            "Training data is a list of records (dictionaries), or a datasets.Dataset.",
            f"an object of type {type(data).__name__}: {str(data)[:60]!r}",
            'Read a file with load_records(path); take one split, as in dataset["train"].',
        )


def checked(record: Any, place: str) -> Record:
    """Return a record without empty values. Raises CourseError if a model cannot learn from it."""
    if isinstance(record, Unreadable):
        do = "Correct it there; json.dumps(record) writes a valid line of JSONL."
        raise CourseError(FILES, f"{place}: {record}".replace(", : ", ", "), do)
    if problem := problem_of(record):
        do = "Correct it there: all is text, none is empty, and the model learns from the answer."
        if not isinstance(record, Mapping):
            do = 'Read a file with load_records(path); take one split, as in dataset["train"].'
        raise CourseError(
            "A record has 'prompt' and 'completion', or 'messages' with an answer, or 'text'.",
            f"{place}: {problem}",
            renaming(record) or do,
        )
    return {key: value for key, value in record.items() if value is not None} | taught(record)


def read_records(path: Path) -> list[Record]:
    """Return the records of one of the course's own JSONL files."""
    return [record for _, record in read_file(path)]


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


def encode_record(record: Record, tokenizer: PreTrainedTokenizerBase, number: int) -> Example:
    """Return a record as token ids, uncut; ``number`` is its name in an error."""
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
    whole = [encode_record(record, tokenizer, number) for number, record in enumerate(records, 1)]
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
