import json
import socket
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ftcourse.chat import supervised_text
from ftcourse.config import FinetuneConfig
from ftcourse.data import (
    as_records,
    encode,
    load_dialogues,
    load_records,
    pad_batch,
    to_messages,
)
from ftcourse.errors import CourseError
from ftcourse.models import load_base

RECORD = {"prompt": "Where is my drone?", "completion": "It is on its way."}
TRICKY = [
    RECORD,
    {"prompt": 'one\u2028"two", three', "completion": "12"},
    {"prompt": "Two\nlines?", "completion": "None"},
    {"text": "NA"},
]


CSV = 'prompt,completion,text\n{}\n"one\u2028""two"", three",12,\n"Two\nlines?",None,\n,,NA\n'
CSV = CSV.format(",".join(RECORD.values()) + ",")
LINES = "\n".join(json.dumps(record, ensure_ascii=False) for record in TRICKY)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", LINES),
        ("a.JSONL", f"\ufeff{LINES}\n\n"),
        ("a.json", LINES),
        ("a.json", json.dumps(TRICKY, indent=2)),
        ("a.json", json.dumps([record | {"step": None} for record in TRICKY])),
        ("a.csv", CSV),
        ("a.csv", f"\ufeff{CSV}"),
    ],
)
def test_the_same_records_are_read_from_every_kind_of_text_file(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_records(tmp_path / name) == TRICKY


def test_a_parquet_file_is_read_without_a_cache_a_network_or_empty_values(tmp_path, monkeypatch):
    from datasets import Dataset, config

    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
    turns[1]["thought"] = "None is expected here"
    columns = {"text": [None, "NA"], "messages": [turns, None]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", Path(tmp_path / "cache"))
    monkeypatch.setattr(socket.socket, "connect", None)
    assert load_records(tmp_path / "a.parquet") == [{"messages": turns}, {"text": "NA"}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("a.jsonl", b'{"text": "a"}\n\nnot json', "a.jsonl, line 3: 'not json' (Expecting"),
        ("a.jsonl", b"[1, 2]", "a.jsonl, line 1: '[1, 2]' (it is no JSON object)"),
        ("a.json", b"not json", "a.json, line 1: 'not json'"),
        ("a.json", b'[\n{"prompt": "a"},\n]', "a.json, "),
        ("a.json", b"[1, 2]", "a.json, record 1: an item of type int: '1'"),
        ("a.jsonl", b"\xff\xfe{}", "a.jsonl: 'utf-8' codec"),
        ("a.csv", "prompt,completion\nä,b".encode("latin-1"), "a.csv: 'utf-8' codec"),
        ("a.csv", b"", "a.csv, line 1: no columns prompt and completion"),
        ("a.csv", b"question,answer\na,b", "in ['question', 'answer']"),
        ("a.csv", b"prompt;completion\na;b", "in ['prompt;completion']"),
        ("a.csv", b"prompt,completion\na,b\na,b,c", "a.csv, line 3: not 2 values"),
        ("a.csv", b"prompt,completion\na,b\na", "a.csv, line 3: not 2 values"),
        ("a.csv", b'prompt,completion\na,b\na,"b\na,b', "row from line 3: unexpected end of data"),
        ("a.parquet", b"not parquet", "a.parquet, Parquet magic bytes not found"),
        ("a.txt", b"text", "a.txt"),
        ("a.jsonl", None, "a.jsonl: no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_name_and_line(name, content, got, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CourseError) as caught:
        load_records(tmp_path / name)
    assert got in caught.value.got


def test_a_data_set_gives_the_records_that_it_was_made_from():
    from datasets import Dataset

    names = ("prompt", "completion", "text")
    columns = {name: [record.get(name) for record in TRICKY] for name in names}
    assert as_records(Dataset.from_dict(columns)) == TRICKY == as_records(TRICKY)


@pytest.mark.parametrize("data", ["a.jsonl", {"train": [RECORD]}])
def test_a_path_or_all_splits_instead_of_records_is_refused_with_what_to_do(data):
    with pytest.raises(CourseError, match=r"an object of type (str|dict)") as caught:
        as_records(data)
    assert "load_records(path)" in caught.value.do
    assert 'dataset["train"]' in caught.value.do


def test_a_record_that_is_cut_before_its_answer_is_left_out_with_a_warning(tokenizer):
    long = {"prompt": "Where? " * 100, "completion": "Here."}
    with pytest.warns(UserWarning, match="1 of 2 records are left out"):
        assert len(encode([RECORD, long], tokenizer, 64)) == 1


def test_a_text_and_a_dialogue_can_stand_in_the_same_data(tokenizer):
    examples = encode([RECORD, {"text": "The wind fell."}], tokenizer, 64)
    supervised = [supervised_text(example, tokenizer) for example in examples]
    assert supervised == ["It is on its way.<|end|>", "<|begin|>The wind fell.<|end|>"]


@pytest.mark.parametrize(
    ("records", "got"),
    [
        ([], "0 records"),
        ([{"prompt": "Where? " * 100, "completion": "Here."}], "none with an answer within"),
    ],
)
def test_data_with_nothing_to_learn_from_is_refused(records, got, tokenizer):
    with pytest.raises(CourseError, match=got):
        encode(records, tokenizer, 64)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Where is my drone?"},
        {"prompt": "Where is my drone?", "completion": ""},
        {"completion": "It is on its way."},
        {"messages": [{"role": "user", "content": "Where?"}]},
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant"}]},
        {"question": "Where?", "answer": "Here."},
        {"messages": []},
    ],
)
def test_a_record_without_question_and_answer_is_refused(record):
    with pytest.raises(CourseError, match="'prompt' and 'completion'"):
        to_messages(record)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_dialogue_of_the_course_can_be_encoded_whole(split, tokenizer):
    records = load_dialogues(split)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = encode(records, tokenizer, 256)
    assert len(examples) == len(records) > 100
    assert supervised_text(examples[0], tokenizer) == records[0]["completion"] + "<|end|>"


def test_padding_without_a_mask_changes_no_loss_and_no_gradient(tokenizer):
    model = load_base(FinetuneConfig(method="full"))
    examples = encode(load_dialogues("train")[:4], tokenizer, 160)
    batch = pad_batch([asdict(example) for example in examples])
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    mask = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    assert mask.min() == 0
    results = []
    for extra in ({}, {"attention_mask": mask}):
        loss = model(**batch, **extra).loss
        results.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for without, with_mask in zip(*results, strict=True):
        torch.testing.assert_close(without, with_mask)
