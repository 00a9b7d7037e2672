import json
import warnings
from dataclasses import asdict

import pytest
import torch

from ftcourse.chat import IGNORED, encode_dialogue, encode_prompt, supervised_text
from ftcourse.data import encode, load_dialogues, pad_batch, read_records, to_messages
from ftcourse.errors import CourseError
from ftcourse.models import load_tokenizer

RECORD = {"prompt": "Where is my drone?", "completion": "It is on its way."}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


def test_only_the_answer_is_supervised(tokenizer):
    example = encode_dialogue(to_messages(RECORD), tokenizer)
    assert supervised_text(example, tokenizer) == "It is on its way.<|end|>"
    assert len(example.input_ids) == len(example.labels)
    assert all(b in (IGNORED, a) for a, b in zip(example.input_ids, example.labels, strict=True))


def test_training_and_asking_see_the_same_prompt(tokenizer):
    messages = to_messages(RECORD)
    prompt = encode_prompt(messages[:-1], tokenizer)
    example = encode_dialogue(messages, tokenizer)
    assert example.input_ids[: len(prompt)] == prompt
    assert set(example.labels[: len(prompt)]) == {IGNORED}


def test_each_answer_of_a_longer_dialogue_is_supervised(tokenizer):
    turns = [("user", "Hello."), ("assistant", "Yes?"), ("user", "Help."), ("assistant", "Gladly.")]
    example = encode_dialogue([{"role": r, "content": c} for r, c in turns], tokenizer)
    assert supervised_text(example, tokenizer) == "Yes?<|end|>Gladly.<|end|>"


def test_every_token_of_plain_text_is_supervised_and_so_is_its_end(tokenizer):
    (example,) = encode([{"text": "The wind fell."}], tokenizer, max_length=64)
    assert tokenizer.decode(example.input_ids) == "<|begin|>The wind fell.<|end|>"
    assert example.labels == example.input_ids


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    import copy

    forgetful = copy.deepcopy(tokenizer)
    forgetful.chat_template = "{{ messages[-1]['content'] }}"
    turns = [("user", "Hello."), ("assistant", "Yes?"), ("user", "Help."), ("assistant", "Gladly.")]
    with pytest.raises(CourseError, match="rewrites earlier turns"):
        encode_dialogue([{"role": r, "content": c} for r, c in turns], forgetful)


def test_a_record_that_is_cut_before_its_answer_is_left_out_and_told(tokenizer):
    long = {"prompt": "Where? " * 100, "completion": "Here."}
    with pytest.warns(UserWarning, match="1 of 2 records are left out"):
        assert len(encode([RECORD, long], tokenizer, 64)) == 1


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
        {"question": "Where?", "answer": "Here."},
        {"messages": []},
    ],
)
def test_a_record_without_question_and_answer_is_refused(record):
    with pytest.raises(CourseError, match="'prompt' and 'completion'"):
        to_messages(record)


def test_a_line_that_is_not_json_is_named_by_its_number(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n\nnot json\n')
    with pytest.raises(CourseError, match="line 3") as caught:
        read_records(path)
    assert "not json" in caught.value.got


def test_a_line_that_is_json_but_no_object_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("[1, 2]\n")
    with pytest.raises(CourseError, match="line 1"):
        read_records(path)


def test_a_missing_file_is_told_with_where_paths_start(tmp_path):
    with pytest.raises(CourseError, match="no such file"):
        read_records(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_dialogue_of_the_course_can_be_encoded_whole(split, tokenizer):
    records = load_dialogues(split)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = encode(records, tokenizer, 256)
    assert len(examples) == len(records) > 100
    assert supervised_text(examples[0], tokenizer) == records[0]["completion"] + "<|end|>"


def test_padding_without_a_mask_changes_no_loss_and_no_gradient(tokenizer):
    from ftcourse.config import FinetuneConfig
    from ftcourse.models import load_base

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


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path):
    record = {"prompt": "one\u2028two", "completion": "three"}
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_records(path) == [record]


def test_a_file_that_is_not_utf_8_is_refused_in_three_parts(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(CourseError, match="UTF-8"):
        read_records(path)
