"""From a file of records to what the trainer eats: tokens in batches, supervised ones marked.

A record is a dictionary, in one of three forms:

- ``{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}``
- ``{"prompt": "a question", "completion": "its answer"}``
- ``{"text": "plain text"}``, all of it supervised: what a model should not forget while it learns
"""

import json
import warnings
from collections.abc import Sequence
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


def read_records(path: str | Path) -> list[Record]:
    """Return the records of a JSONL file: one JSON object a line, empty lines skipped.

    Raises CourseError, with the line's number, for a line that is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(
            "Training data is a file with one JSON object a line.",
            f"{path}: no such file",
            "Check the path; relative paths start at " + str(Path.cwd()) + ".",
        )
    try:  # only a newline ends a line: JSON may hold other line separators inside its strings
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CourseError(
            "Training data is text in UTF-8.", f"{path}: {error}", "Save the file as UTF-8."
        ) from error
    return [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def _parse(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        record = error
    if isinstance(record, dict):
        return record
    raise CourseError(
        "Each line is one JSON object.",
        f"{where}: {line[:60]!r}" + (f" ({record})" if isinstance(record, Exception) else ""),
        "Mend that line; json.dumps(record) writes one that can be read.",
    )


def load_dialogues(split: str, voice: str = "brand") -> list[Record]:
    """Return the support desk's dialogues, answered in the ``brand`` or the ``neutral`` voice.

    ``split`` is ``train``, ``validation`` or ``test``. A record's ``step`` is the advice that both
    answers give, word for word.
    """
    return [
        {"prompt": record["customer"], "completion": record[voice], "step": record["step"]}
        for record in read_records(course_path(f"data/dialogues/{split}.jsonl"))
    ]


def to_messages(record: Record) -> list[Message]:
    """Return a record's dialogue as chat messages. Raises CourseError without an answer."""
    messages = record.get("messages")
    if messages is None:
        pairs = (("user", record.get("prompt")), ("assistant", record.get("completion")))
        messages = [{"role": role, "content": content} for role, content in pairs if content]
    if [m for m in messages if m["role"] == "assistant" and m["content"]] and len(messages) > 1:
        return messages
    raise CourseError(
        "A record has 'prompt' and 'completion', or 'messages' that end in an answer, or 'text'.",
        f"no answer in {json.dumps(record)[:80]}" if messages else f"keys {', '.join(record)}",
        "Add the assistant's answer; it is what the model learns to say.",
    )


def encode_record(record: Record, tokenizer: PreTrainedTokenizerBase) -> Example:
    """Return a record of any form as token ids, the supervised ones marked."""
    if isinstance(record.get("text"), str) and record["text"].strip():
        return encode_text(record["text"], tokenizer)
    return encode_dialogue(to_messages(record), tokenizer)


def encode(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """Return the records as token ids, cut to ``max_length``: answers and plain text supervised.

    Raises CourseError if there is nothing to learn from, and warns of records that are left out
    because their answer lies wholly beyond ``max_length``.
    """
    whole = [encode_record(record, tokenizer) for record in records]
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
            f"beyond max_length={max_length}.",
            stacklevel=2,
        )
    return kept


def pad_batch(examples: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Return examples as ``input_ids`` and ``labels`` of shape (batch, longest), padded right.

    There is no attention mask, and none is needed: a causal model never looks to the right, where
    the padding stands, and the loss ignores it. So attention can take its fast path.
    """
    rows = {name: [torch.tensor(e[name]) for e in examples] for name in ("input_ids", "labels")}
    padding = {"input_ids": 0, "labels": IGNORED}
    return {n: pad_sequence(rows[n], batch_first=True, padding_value=padding[n]) for n in rows}
