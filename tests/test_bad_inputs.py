"""A corpus of inputs, one table a door: each row is accepted, or refused by our own error.

No row may raise anything else, and a refusal leaves the disk as it was. ``test_promises.py`` has
the door of checkpoints, ``test_lab.py`` the lab's folder and its configurations.
"""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ftcourse import cli
from ftcourse.chat import ask
from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues, load_records
from ftcourse.errors import CourseError
from ftcourse.evaluate import advice_score
from ftcourse.files import course_path
from ftcourse.handbook import fact_score, load_pages, load_questions
from ftcourse.hardware import CARDS, Card
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import cheapest_change, judge_fit, largest
from ftcourse.models import load_base, load_tokenizer
from ftcourse.plots import plot_memory, plot_memory_against
from ftcourse.shape import ModelShape, load_shape
from ftcourse.simulate import simulate_memory
from ftcourse.train import finetune
from ftcourse.voice import voice_score
from ftcourse.widgets.memory import memory_panel

T4 = CARDS["T4"]
HUGE = 10**400


def refusal(call, *args, **kwargs):
    """Return our error, or None if the call succeeds; anything else is raised and fails a test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(*args, **kwargs)
            found = None
        except CourseError as error:
            found = error
    assert not found or (found.must and found.got and found.do and len(str(found)) < 3000)
    return found


def rows(table):
    return pytest.mark.parametrize("row", table.values(), ids=map(str, table))


# The door of configs: fields that are refused, and those that are taken for what they are.

NUMBERS = ["rank", "batch_size", "gradient_accumulation_steps", "max_length", "max_steps"]
NO_COUNT = [0, -1, 1.5, True, "4", None, 10**30, float("inf"), float("nan"), [4], b"4", 4j]
NO_POSITIVE = [0, -1.0, True, "1e-3", None, HUGE, float("inf"), float("nan"), [1], 1j]
REFUSED_FIELDS = [(name, value) for name in NUMBERS for value in NO_COUNT]
REFUSED_FIELDS += [(name, value) for name in ("alpha", "learning_rate") for value in NO_POSITIVE]
REFUSED_FIELDS += [("lora_dropout", v) for v in ("0.1", None, -0.1, 1, 1.0, float("nan"), [0.1])]
REFUSED_FIELDS += [("seed", value) for value in (True, -1, 2**32, "0", 1.0, None, HUGE)]
REFUSED_FIELDS += [("model", value) for value in (None, 5, "", " ", ["a"], "a\0b", b"embedded")]
REFUSED_FIELDS += [
    ("target_modules", value)
    for value in ([None], [], "", [""], 5, None, {"q_proj"}, b"q_proj", ["q_proj", 3], [["a"]])
]
REFUSED_FIELDS += [("bits", value) for value in ("4", 4.0, True, 5, None, [4])]
REFUSED_FIELDS += [
    (name, value)
    for name in ("method", "dtype", "optimizer", "attention", "loss", "quant_type", "adapter_dtype")
    for value in (None, "QLORA", 5, [], {})
]
REFUSED_FIELDS += [
    (name, value)
    for name in ("double_quant", "upcast", "gradient_checkpointing")
    for value in (None, "yes", 2, [], 1)
]
REFUSED_FIELDS += [("max_lenght", 512), ("r", 8), ("", 1)]


@pytest.mark.parametrize(("name", "value"), REFUSED_FIELDS)
def test_a_field_that_cannot_work_is_refused_by_name(name, value):
    error = refusal(FinetuneConfig, **{name: value})
    assert error
    assert name in str(error)


ACCEPTED_FIELDS = {
    "rank": (np.int64(4), 4),
    "batch_size": (np.int32(2), 2),
    "max_length": (torch.tensor(64), 64),
    "bits": (np.int64(8), 8),
    "gradient_checkpointing": (np.True_, True),
    "double_quant": (np.False_, False),
    "learning_rate": (np.float64(1e-3), 1e-3),
    "alpha": (np.float64(16), 16.0),
    "lora_dropout": (np.float64(0.1), 0.1),
    "seed": (np.uint8(7), 7),
    "target_modules": (["q_proj", "v_proj"], ("q_proj", "v_proj")),
}


@pytest.mark.parametrize("name", ACCEPTED_FIELDS)
def test_a_number_of_numpy_or_torch_is_the_number_that_it_is(name):
    given_value, plain = ACCEPTED_FIELDS[name]
    config = FinetuneConfig(**{name: given_value})
    assert getattr(config, name) == plain
    assert type(getattr(config, name)) is type(plain)
    assert hash(config) == hash(replace(config))


# The door of sizes: capacities and shapes.

CAPACITIES = ["big", -1, 0, float("nan"), float("inf"), None, True, [1], "1", -(10**400)]


@pytest.mark.parametrize("capacity", CAPACITIES, ids=str)
def test_a_capacity_that_is_no_number_of_bytes_is_refused(capacity):
    assert refusal(largest, FinetuneConfig(), "rank", capacity, T4)


@pytest.mark.parametrize("field", [None, 3, "", "nope", "learning_rate", ["rank"]], ids=str)
def test_a_field_that_fills_no_card_is_refused(field):
    assert refusal(largest, FinetuneConfig(), field, T4.memory, T4)


LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
BAD_SHAPES = [
    (name, value) for name in LLAMA for value in (None, 0, -1, "x", 1.5, True, 10**30, [])
]
BAD_SHAPES.remove(("num_key_value_heads", None))  # then there are as many as heads
BAD_SHAPES += [("head_dim", value) for value in (-4, 0, "x", 1.5)]
BAD_SHAPES += [("num_key_value_heads", 3), ("num_attention_heads", 7), ("sliding_window", "x")]
BAD_SHAPES += [("tie_word_embeddings", "yes")]


@pytest.mark.parametrize(("name", "value"), BAD_SHAPES)
def test_a_config_of_no_model_gives_no_shape(name, value):
    assert refusal(ModelShape.from_config, LLAMA | {name: value})


@pytest.mark.parametrize("config", [None, 5, [], "llama", {}, b"{}"], ids=str)
def test_what_is_no_config_gives_no_shape(config):
    assert refusal(ModelShape.from_config, config)
    assert refusal(ModelShape.named, config)


# The door of data: the second line of a file, or a whole file.

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
BAD_RECORDS = {
    "a number as the question": {"prompt": 5, "completion": "x"},
    "a truth value as the question": {"prompt": True, "completion": "x"},
    "no number as the question": {"prompt": float("nan"), "completion": "x"},
    "a list as the answer": {"prompt": "a", "completion": ["x"]},
    "a dictionary as the answer": {"prompt": "a", "completion": {"x": 1}},
    "a number as the answer": {"prompt": "a", "completion": 5},
    "an answer of blanks": {"prompt": "q", "completion": " \n\t "},
    "a question of blanks": {"prompt": "  ", "completion": "x"},
    "only a question": {"prompt": "q"},
    "only an answer": {"completion": "x"},
    "nothing": {},
    "other keys": {"question": "q", "answer": "a"},
    "a text that is a number": {"text": 5},
    "a text of blanks": {"text": "  "},
    "text beside a dialogue": {"text": "abc", "prompt": "q", "completion": "x"},
    "two dialogues": {"messages": [USER, ANSWER], "prompt": "q", "completion": "z"},
    "half a character in the question": {"prompt": "q \ud800", "completion": "x"},
    "half a character in the answer": {"prompt": "q", "completion": "x\udfff"},
    "half a character in a text": {"text": "\ud800"},
    "a NUL in the question": {"prompt": "a\0b", "completion": "c"},
    "a NUL in a message": {"messages": [{"role": "user", "content": "\0"}, ANSWER]},
    "messages that are text": {"messages": "hello"},
    "messages that are a dictionary": {"messages": {"role": "user", "content": "q"}},
    "messages that are texts": {"messages": ["a", "b"]},
    "messages that are a number": {"messages": 5},
    "messages that are lists": {"messages": [["user", "q"], ["assistant", "a"]]},
    "no messages": {"messages": []},
    "no role": {"messages": [{"content": "q"}, ANSWER]},
    "an unknown role": {"messages": [{"role": "robot", "content": "x"}, ANSWER]},
    "a number as the role": {"messages": [{"role": 1, "content": "x"}, ANSWER]},
    "no role at all": {"messages": [{"role": None, "content": "x"}, ANSWER]},
    "a list as the role": {"messages": [{"role": ["user"], "content": "x"}, ANSWER]},
    "no content": {"messages": [{"role": "user"}, ANSWER]},
    "null as the content": {"messages": [{"role": "user", "content": None}, ANSWER]},
    "content in parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]
    },
    "an answer in parts": {
        "messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "q"}]}]
    },
    "a number as the content": {"messages": [{"role": "user", "content": 3}, ANSWER]},
    "an answer of blanks in messages": {"messages": [USER, {**ANSWER, "content": "  "}]},
    "the assistant first": {"messages": [ANSWER, USER, ANSWER]},
    "the assistant alone": {"messages": [ANSWER]},
    "the user alone": {"messages": [USER]},
    "the system alone": {"messages": [{"role": "system", "content": "s"}, ANSWER]},
    "the system in the middle": {
        "messages": [USER, {"role": "system", "content": "s"}, USER, ANSWER]
    },
    "a number as the system's word": {"messages": [{"role": "system", "content": 3}, USER, ANSWER]},
}


@rows(BAD_RECORDS)
def test_a_record_to_learn_nothing_from_is_refused_with_file_and_line(row, tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(row_) for row_ in ({"prompt": "q", "completion": "a"}, row)]
    path.write_text("\n".join(lines), encoding="utf-8")
    error = refusal(load_records, path)
    assert "data.jsonl, line 2" in error.got
    assert refusal(finetune, FinetuneConfig(), [row], tmp_path / "run")
    assert not (tmp_path / "run").exists()


GOOD = b'{"prompt": "q", "completion": "a"}\n'
BAD_FILES = {
    "a.jsonl of nested lists": b"[" * 100_000 + b"]" * 100_000,
    "b.jsonl of nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "c.jsonl with 5,000 digits": b'{"prompt": ' + b"9" * 5000 + b', "completion": "x"}',
    "d.jsonl with NUL bytes": GOOD + b"\0\0\0",
    "e.jsonl in UTF-16": b"\xff\xfe{\0}\0",
    "f.jsonl with a comma": GOOD.strip() + b",",
    "g.jsonl with a list": b"[1, 2]",
    "h.jsonl with a half line": GOOD + b'{"prompt": "q", "compl',
    "i.jsonl that is HTML": b"<!DOCTYPE html><html></html>",
    "j.jsonl as a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n",
    "k.json with null": b"null",
    "l.json with a number": b"5",
    "m.json with a list of null": b"[null]",
    "n.json with a list of lists": b"[[1]]",
    "o.json with many digits": b"[" + b"9" * 5000 + b"]",
    "p.json nested": b"[" * 100_000,
    "q.json with one object": b'{"a": {"b": 1}}',
    "r.csv without its columns": b"a,b\n1,2\n",
    "s.csv with an open quote": b'prompt,completion\n"a,b\n',
    "t.csv with a NUL": b"prompt,completion\na\0,b\n",
    "u.csv of nothing": b"",
    "v.csv with a huge value": b"prompt,completion\na," + b"x" * 200_000 + b"\n",
    "w.csv with an empty answer": b"prompt,completion\na,\n",
    "x.parquet of text": b"nope",
    "y.txt of text": b"text",
    "z of nothing": b"",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_of_no_records_is_refused_by_name(name, tmp_path):
    path = tmp_path / name.split()[0]
    path.write_bytes(BAD_FILES[name])
    assert path.name in refusal(load_records, path).got


@pytest.mark.parametrize(
    "data",
    [None, 5, "a.jsonl", b"x", {"train": []}, [None], [5], ["text"], [[]], iter("ab"), [], {}],
    ids=lambda data: type(data).__name__,
)
def test_what_is_no_list_of_records_is_refused(data, tmp_path):
    assert refusal(finetune, FinetuneConfig(), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_generator_of_records_is_a_list_of_them(tokenizer):
    from ftcourse.data import as_records

    records = as_records({"prompt": "q", "completion": "a", "id": n} for n in range(3))
    assert len(encode(records, tokenizer, 64)) == 3


# The door of models: a folder in the Hub's format, damaged.


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")


def write(name, content):
    def damage(folder):
        (folder / name).write_bytes(content)

    return damage


def reweigh(change):
    def damage(folder):
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return damage


def lose_a_shard(folder):
    weights = load_file(folder / "model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    first = dict(sorted(weights.items())[:20])
    save_file(first, folder / names[0], metadata={"format": "pt"})
    where = {name: names[name not in first] for name in weights}
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "model.safetensors").unlink()


def become_an_adapter(folder):
    (folder / "config.json").unlink()
    config = {"base_model_name_or_path": "embedded", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def run_code_of_its_own(folder):
    edit(
        folder, model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    )
    (folder / "own.py").write_text("raise SystemExit('it ran')", encoding="utf-8")


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


TEMPLATE = "chat_template.jinja"
LOOP = b"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"
BAD_MODELS = {
    "half of its tensors": (
        reweigh(lambda w: dict(sorted(w.items())[::2])),
        "missing: ",
    ),
    "one tensor too many": (
        reweigh(lambda w: w | {"model.more.weight": torch.zeros(3)}),
        "model.more.weight",
    ),
    "too many layers": (lambda f: edit(f, num_hidden_layers=7), "18 missing"),
    "too few layers": (lambda f: edit(f, num_hidden_layers=3), "18 not the model's"),
    "another width": (lambda f: edit(f, hidden_size=64), "of another shape"),
    "another inner width": (lambda f: edit(f, intermediate_size=256), "of another shape"),
    "a larger vocabulary": (lambda f: edit(f, vocab_size=5000), "embed_tokens"),
    "a smaller vocabulary": (lambda f: edit(f, vocab_size=100), "embed_tokens"),
    "weights that were cut": (cut, "incomplete"),
    "a pointer for weights": (
        write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS",
    ),
    "a web page for weights": (write("model.safetensors", b"<!DOCTYPE html>"), "a web page"),
    "no bytes for weights": (write("model.safetensors", b""), "0 bytes"),
    "a missing shard": (lose_a_shard, "model-00002-of-00002"),
    "a damaged index": (write("model.safetensors.index.json", b"{}"), "weight_map"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "safetensors"),
    "a pickle for weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "pytorch_model.bin",
    ),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "tokenizer"),
    "a damaged tokenizer": (write("tokenizer.json", b"{"), "tokenizer"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "an empty config": (write("config.json", b""), "config.json"),
    "a damaged config": (write("config.json", b"{nope"), "config.json"),
    "a list for a config": (write("config.json", b"[]"), "config.json"),
    "a nested config": (write("config.json", b"[" * 100_000), "config.json"),
    "an unknown family": (lambda f: edit(f, model_type="nosuch"), "nosuch"),
    "no family": (lambda f: edit(f, model_type=None), "model_type"),
    "code of its own": (run_code_of_its_own, "auto_map"),
    "weights of GPTQ": (
        lambda f: edit(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "gptq",
    ),
    "weights of nobody knows what": (lambda f: edit(f, quantization_config=5), "quantized"),
    "an adapter": (become_an_adapter, "an adapter"),
    "a template that raises": (write(TEMPLATE, b"{{ raise_exception('no') }}"), "no"),
    "a template that is none": (write(TEMPLATE, b"{% for %}"), "template"),
    "a template without an end": (
        write(TEMPLATE, b"{% for m in messages %}{{ m.content }}{% endfor %}"),
        "no special token",
    ),
    "a template that fills the memory": (write(TEMPLATE, b"{{ 'a' * 10000000000 }}"), "failed"),
    "a template that never ends": (write(TEMPLATE, LOOP), "seconds"),
}


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_damaged_model_is_refused_in_words_whatever_the_method(
    name, method, tmp_path, monkeypatch
):
    monkeypatch.setattr("ftcourse.models.tokenizer._SECONDS", 8)
    damage, word = BAD_MODELS[name]
    shutil.copytree(course_path("data/model"), tmp_path / "model")
    damage(tmp_path / "model")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "model").iterdir()}
    config = FinetuneConfig(model=str(tmp_path / "model"), method=method, max_steps=1, batch_size=1)
    error = refusal(finetune, config, [{"prompt": "q", "completion": "a"}], tmp_path / "run")
    assert word in str(error)
    assert "trust_remote_code=True" not in str(error)
    assert not (tmp_path / "run").exists()
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "model").iterdir()}


# The door of the command line: exit code 2, and words.

COMMANDS = [
    "predict --batch-size 1000000000000000000",
    "predict --batch-size 0",
    "predict --rank 100000000000000000000000000",
    "predict --seed -1",
    "predict --learning-rate nan",
    "predict --alpha inf",
    "predict --lora-dropout 1",
    "predict --card=",
    "predict --card T5",
    "predict --largest=",
    "predict --largest seed",
    "predict --largest rank --method full",
    "predict --model=",
    "predict --model ~nosuchuser/model",
    "predict --model ./no/such/folder",
    "predict --model /no/such/folder",
    "predict --target-modules=",
    "predict --target-modules ,",
    "predict --target-modules q_proj,",
    "predict --target-modules nosuch",
    "predict --method lora --upcast",
    "predict --method LORA",
    "predict --bits 5",
    "predict --simulate --model ./no/such/folder",
    "finetune no.jsonl --output-dir run",
    "finetune data.txt --output-dir run",
    "finetune data.jsonl --output-dir=",
    "finetune data.jsonl --output-dir ~nosuchuser/run",
    "finetune data.jsonl --output-dir data.jsonl",
    "finetune data.jsonl --output-dir run --dtype float16",
    "finetune data.jsonl --output-dir run --max-length 1",
    "finetune data.jsonl --output-dir run --model ./no/such/folder",
    "finetune . --output-dir run",
    "finetune ~nosuchuser/data.jsonl --output-dir run",
    "lab ~nosuchuser/lessons --copy-only",
    "lab data.jsonl --copy-only",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_cannot_work_ends_with_2_and_words(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_bytes(GOOD)
    assert cli.main(command.split()) == 2
    said = capsys.readouterr().err
    assert "  got: " in said
    assert "  do:  " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl"]


def test_a_batch_of_billions_is_predicted_at_once(capsys):
    command = ["predict", "--model", "llama-3.1-8b", "--card", "T4", "--batch-size", "2000000000"]
    assert cli.main(command) == 0
    assert "largest part: activations" in capsys.readouterr().out


# Property tests: whatever comes, it is accepted, or refused by our own error.

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FAST = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
FIELDS = sorted(vars(FinetuneConfig()))


@FAST
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3))
def test_any_fields_make_a_config_or_our_error(fields):
    refusal(FinetuneConfig, **fields)


@FAST
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rank": st.integers(1, 2**31 - 1),
            "batch_size": st.integers(1, 2**31 - 1),
            "max_length": st.integers(1, 2**31 - 1),
            "gradient_accumulation_steps": st.integers(1, 2**31 - 1),
            "method": st.sampled_from(["full", "lora", "qlora"]),
            "bits": st.sampled_from([4, 8]),
            "loss": st.sampled_from(["full", "chunked"]),
            "attention": st.sampled_from(["sdpa", "eager"]),
            "gradient_checkpointing": st.booleans(),
        },
    )
)
def test_any_config_has_a_prediction(fields):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert predict_memory(FinetuneConfig(**fields), T4).allocated > 0


@FAST
@given(
    st.dictionaries(st.sampled_from(["prompt", "completion", "messages", "text", "x"]), ANYTHING)
)
def test_any_record_is_encoded_or_refused(tokenizer, record):
    refusal(encode, [record], tokenizer, 64)


@FAST
@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".json", ".csv"]))
def test_any_bytes_are_records_or_refused(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(content)
    refusal(load_records, path)


@FAST
@given(st.dictionaries(st.sampled_from([*LLAMA, "head_dim", "sliding_window"]), ANYTHING))
def test_any_config_of_a_model_is_a_shape_or_refused(values):
    refusal(ModelShape.from_config, LLAMA | values)


def test_the_corpus_is_large():
    doors = [REFUSED_FIELDS, ACCEPTED_FIELDS, CAPACITIES, BAD_SHAPES, BAD_RECORDS, BAD_FILES]
    count = sum(map(len, doors)) + 3 * len(BAD_MODELS) + len(COMMANDS)
    assert count >= 300


# The door of Python: what a lesson calls.


def test_attention_that_is_not_installed_is_refused(tmp_path):
    config = FinetuneConfig(attention="flash_attention_2", max_steps=1)
    assert "flash-attn" in refusal(finetune, config, [{"prompt": "q", "completion": "a"}]).must


def test_float16_on_a_cpu_is_not_said_to_fit(monkeypatch, capsys):
    monkeypatch.setattr("ftcourse.cli.detect", lambda: Card("CPU", 2**34))
    assert cli.main(["predict", "--dtype", "float16"]) == 2
    assert "needs a GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    "question", [None, "", "  ", 5, [], ["a"], [{"role": "user"}], {}], ids=str
)
def test_a_question_without_words_is_refused(question, tokenizer):
    assert refusal(ask, None, tokenizer, question)


@pytest.mark.parametrize(
    "call",
    [
        lambda: voice_score([]),
        lambda: fact_score([], []),
        lambda: fact_score(["a"], []),
        lambda: advice_score(["a"], []),
        lambda: load_dialogues("trian"),
        lambda: load_dialogues("train", "loud"),
        lambda: load_questions(wording=3),
        lambda: load_pages(3),
        lambda: load_records(""),
        lambda: load_records("~nosuchuser/a.jsonl"),
    ],
)
def test_what_a_lesson_calls_is_refused_in_words(call):
    assert refusal(call)


RECORD = {"prompt": "q", "completion": "a"}
MISUSES = {
    "a name for a config": lambda: predict_memory("embedded"),
    "nothing for a config": lambda: predict_memory(None),
    "a name for a card": lambda: predict_memory(FinetuneConfig(), "T4"),
    "a number for a card": lambda: predict_memory(FinetuneConfig(), 5),
    "a simulated name": lambda: simulate_memory("embedded"),
    "a simulated card's name": lambda: simulate_memory(FinetuneConfig(), "T4"),
    "a measured name": lambda: measure_memory("embedded"),
    "a trained name": lambda: finetune("embedded", [RECORD]),
    "a folder that is a number": lambda: finetune(FinetuneConfig(), [RECORD], output_dir=5),
    "the most of a name": lambda: largest("embedded", "rank", 10**9, T4),
    "the most on a name": lambda: largest(FinetuneConfig(), "rank", 10**9, "T4"),
    "a judgement on nothing": lambda: judge_fit(None, T4),
    "a judgement by a name": lambda: judge_fit(predict_memory(FinetuneConfig(), T4), "T4"),
    "a change for a name": lambda: cheapest_change(FinetuneConfig(), "T4"),
    "a shape of nothing": lambda: load_shape(None),
    "a shape of a number": lambda: load_shape(5),
    "a model of a name": lambda: load_base("embedded"),
    "a tokenizer of nothing": lambda: load_tokenizer(None),
    "a panel of no card": lambda: memory_panel(card="T5"),
    "a picture of nothing": lambda: plot_memory(None),
    "a picture of text": lambda: plot_memory("x"),
    "a picture of numbers": lambda: plot_memory([1, 2]),
    "a capacity in words": lambda: plot_memory(predict_memory(FinetuneConfig(), T4), "x"),
    "a curve over nothing": lambda: plot_memory_against(FinetuneConfig(), "rank", None, T4),
    "a curve over words": lambda: plot_memory_against(FinetuneConfig(), "rank", ["a", "b"], T4),
}


@rows(MISUSES)
def test_a_value_of_another_kind_is_refused_in_words(row):
    assert refusal(row)
