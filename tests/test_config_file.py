import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftcourse.config import FinetuneConfig
from ftcourse.config_file import Plan, read_config, write_config
from ftcourse.errors import CourseError

HINTS = get_type_hints(FinetuneConfig)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
MODELS = NAMES.filter(lambda name: name.strip() and not name.startswith("."))
WHOLE = st.integers(1, 2**31 - 1)
VALUES = {
    "model": MODELS,
    "rank": WHOLE,
    "alpha": st.one_of(st.integers(1, 10**9), st.floats(1e-9, 1e9)),
    "target_modules": st.one_of(
        NAMES.filter(str.strip), st.lists(NAMES.filter(str.strip), min_size=1)
    ),
    "lora_dropout": st.floats(0, 1, exclude_max=True),
    "upcast": st.just(False),
    "batch_size": WHOLE,
    "gradient_accumulation_steps": WHOLE,
    "max_length": WHOLE,
    "learning_rate": st.floats(1e-12, 1e9),
    "max_steps": WHOLE,
    "seed": st.integers(0, 2**32 - 1),
}
CHOICES = {
    name: st.sampled_from(get_args(hint) if get_origin(hint) is Literal else (True, False))
    for name, hint in HINTS.items()
    if name not in VALUES
}
CONFIGS = st.fixed_dictionaries(VALUES | CHOICES).map(lambda values: FinetuneConfig(**values))


@settings(deadline=None, max_examples=200)
@given(config=CONFIGS)
def test_any_config_is_read_as_it_was_written(tmp_path_factory, config):
    path = write_config(tmp_path_factory.mktemp("plan") / "run.toml", config)
    assert read_config(path) == Plan(config)


def test_the_file_holds_every_field_so_that_later_defaults_change_nothing(tmp_path):
    lines = write_config(tmp_path / "run.toml", FinetuneConfig()).read_text(encoding="utf-8")
    for field in fields(FinetuneConfig):
        assert f"\n{field.name} = " in lines


def test_paths_are_those_of_the_writer_wherever_the_reader_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    config = FinetuneConfig(model="./mine")
    paths = {"data": "letters.jsonl", "output_dir": "runs/first", "validation": "held/out.jsonl"}
    write_config("runs/run.toml", config, **paths, patience=2)
    text = Path("runs/run.toml").read_text(encoding="utf-8")
    assert 'data = "../letters.jsonl"\nvalidation = "../held/out.jsonl"' in text
    assert 'output_dir = "first"\npatience = 2\n' in text
    assert 'model = "./../mine"' in text
    here = read_config("runs/run.toml")
    assert here == Plan(config, **{n: Path(p) for n, p in paths.items()}, patience=2)
    monkeypatch.chdir("runs")
    there = read_config("run.toml")
    for name, path in paths.items():
        assert os.path.realpath(getattr(there, name)) == os.path.realpath(tmp_path / path)
    assert os.path.realpath(there.config.model) == os.path.realpath(tmp_path / "mine")


def test_an_absolute_path_and_one_in_the_home_stay_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = tmp_path / "run.toml"
    path.write_text('data = "~/a.jsonl"\noutput_dir = "/b"\n', encoding="utf-8")
    assert read_config(path).data == tmp_path / "a.jsonl"
    assert read_config(path).output_dir == Path("/b")


def test_a_file_may_leave_out_what_has_a_default(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("\ufeffrank = 3\n", encoding="utf-8")  # and begin with the mark of Windows
    assert read_config(path) == Plan(FinetuneConfig(rank=3))


BAD = {
    "an unknown key": ("rnak = 8", "Do you mean rank?"),
    "an unknown path": ('validaton = "x"', "Do you mean validation?"),
    "a table": ("[config]\nrank = 8", "config = {'rank': 8}"),
    "a key of nothing": ("zzzz = 8", "Leave it out."),
    "no TOML": ("rank: 8", "line 1"),
    "a value twice": ("rank = 8\nrank = 9", "overwrite a value"),
    "a wrong value": ("rank = 0", "rank=0"),
    "a wrong choice": ('method = "lroa"', "method='lroa'"),
    "text for a number": ('rank = "8"', "rank='8'"),
    "a number for a path": ("data = 5", "data = 5"),
    "an empty path": ('output_dir = ""', "an empty path"),
    "a patience of 0": ("patience = 0", "patience=0"),
    "a patience of true": ("patience = true", "patience=True"),
    "a date": ("seed = 2026-01-01", "seed="),
    "deep brackets": ("rank = " + "[" * 5000, "run.toml"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_work_is_refused_and_says_where(name, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(BAD[name][0], encoding="utf-8")
    with pytest.raises(CourseError) as caught:
        read_config(path)
    assert BAD[name][1] in str(caught.value)


def test_a_file_in_another_encoding_and_one_that_is_missing_are_refused(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"\xff\xfer\0")
    for name in ("run.toml", "none.toml"):
        with pytest.raises(CourseError, match=name):
            read_config(tmp_path / name)


def test_a_file_of_somebody_else_is_not_written_over_but_our_own_is(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "mine"\n', encoding="utf-8")
    with pytest.raises(CourseError, match="project"):
        write_config(path, FinetuneConfig())
    assert "mine" in path.read_text(encoding="utf-8")
    own = tmp_path / "run.toml"
    write_config(own, FinetuneConfig(rank=4))
    write_config(own, FinetuneConfig(rank=5))
    assert asdict(read_config(own).config)["rank"] == 5


@pytest.mark.parametrize(
    "wrong",
    [{"config": {"rank": 8}}, {"data": ["a"]}, {"data": ""}, {"patience": 0}, {"output_dir": 5}],
    ids=str,
)
def test_what_cannot_be_read_again_is_not_written(wrong, tmp_path):
    with pytest.raises(CourseError):
        write_config(tmp_path / "run.toml", **({"config": FinetuneConfig()} | wrong))
    assert not (tmp_path / "run.toml").exists()
