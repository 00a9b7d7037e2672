import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.files import course_path
from ftcourse.hardware import CARDS
from ftcourse.memory import PARTS, predict_memory, records
from ftcourse.memory.records import nearest_record, recorded_runs

T4, A100 = CARDS["T4"], CARDS["A100 80GB"]
GRID = Path(__file__).parents[1] / "benchmarks" / "measure_grid.py"


@pytest.fixture(scope="module")
def grid():
    """Return the measuring script as a module."""
    spec = importlib.util.spec_from_file_location("measure_grid", GRID)
    grid = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grid)
    return grid


@pytest.fixture(scope="module")
def written(grid, tmp_path_factory):
    """Return the line that the measuring script writes for one small run on this machine."""
    config = FinetuneConfig(model="embedded", batch_size=1, max_length=32)
    scratch = tmp_path_factory.mktemp("scratch")
    shutil.copytree(course_path("data/model"), scratch / "embedded")
    return json.loads(json.dumps(grid.measure(config, scratch)))


@pytest.fixture
def only(monkeypatch, tmp_path):
    """Replace the recorded runs by the given lines."""

    def write(*lines):
        (tmp_path / "card-2026-11-21.jsonl").write_text(
            "".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8"
        )
        monkeypatch.setattr(records, "course_path", lambda name: tmp_path)
        recorded_runs.cache_clear()

    yield write
    recorded_runs.cache_clear()


def test_a_thinned_timeline_keeps_its_peak_and_its_ends(grid):
    timeline = [dict.fromkeys(PARTS, 1 + n % 7) for n in range(10_001)]
    timeline[4321]["activations"] = 99
    thin = grid.thin(timeline, 100)
    assert thin["event"][0] == 0
    assert thin["event"][-1] == 10_000
    assert 4321 in thin["event"]
    assert len(thin["event"]) <= 102
    assert {part: thin[part][3] for part in PARTS} == timeline[thin["event"][3]]
    assert grid.thin(timeline[:5])["event"] == [0, 1, 2, 3, 4]


def test_timelines_are_written_once_and_are_no_recorded_runs(grid, monkeypatch, tmp_path, capsys):
    runs = [FinetuneConfig(batch_size=1, max_length=32, method=name) for name in ("lora", "qlora")]
    monkeypatch.setattr(grid, "timelines", lambda models: runs)
    options = ["--timeline", "--output", str(tmp_path), "--scratch", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["measure_grid.py", *options])
    for said in ("embedded lora done\nembedded qlora done\n", ""):  # the second time all is there
        grid.main()
        assert capsys.readouterr().out == said
    (path,) = tmp_path.glob("*-timeline.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["config"]["method"] for line in lines] == ["lora", "qlora"]
    for line, config in zip(lines, runs, strict=True):
        sums = map(sum, zip(*(line["timeline"][part] for part in PARTS), strict=True))
        assert max(sums) == line["peak"] == predict_memory(config).allocated
        assert {"device", "date", "versions"} <= line.keys()
        assert "measured" not in line


def published(**values):
    """Return the config of fitcheck's QLoRA runs, with some other values."""
    run = FinetuneConfig(
        method="qlora",
        dtype="float16",
        upcast=True,
        double_quant=False,
        optimizer="adamw_torch",
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    )
    return replace(run, **values)


@pytest.mark.parametrize(
    ("by", "card", "loop", "sums"),
    [  # fitcheck published 284,099.02 MiB and 329,584 MiB in all, litgpt 243.17 GB
        (
            "fitcheck",
            "Tesla T4",
            {"autocast": False, "holds_logits": True},
            (61, 297_899_410_432, 345_593_872_384),
        ),
        ("litgpt", "NVIDIA A100-SXM4-40GB", {"autocast": False}, (17, 243_170_000_000, 0)),
    ],
)
def test_published_runs_keep_their_numbers(by, card, loop, sums):
    runs = [run for run in recorded_runs() if run.by == by]
    reserved = sum(run.reserved or 0 for run in runs)
    assert (len(runs), sum(run.allocated for run in runs), reserved) == sums
    for run in runs:
        assert (run.card, run.loop, run.breakdown) == (card, loop, None)
        assert run.note.startswith("its own ")


def test_a_run_of_litgpt_has_what_its_tables_leave_open():
    run = {"method": "lora", "rank": 8, "batch_size": 1, "max_length": 1304}
    asked = FinetuneConfig(model="llama-2-7b", **run, gradient_checkpointing=False)
    near = nearest_record(replace(asked, adapter_dtype="bfloat16"), CARDS["A100 40GB"])
    assert list(near.differs) == ["optimizer", "target_modules"]
    assert near.record.allocated == 21_300_000_000
    text = "recorded: 19.84 GiB on NVIDIA A100-SXM4-40GB, 2023-10, by litgpt with torch 2.1.0; "
    assert repr(near).startswith(text)


def test_a_run_that_was_published_finds_itself():
    near = nearest_record(published(model="qwen2.5-7b", batch_size=1, max_length=1024), T4)
    assert near.differs == {}
    assert repr(near) == (
        "recorded: 10.34 GiB on Tesla T4, 2026-09-21, by fitcheck; differs: "
        "its own training loop, without autocast"
    )


def test_the_repr_names_what_differs_with_both_values():
    asked = published(
        model="qwen2.5-7b", batch_size=2, max_length=1024, target_modules="all-linear"
    )
    near = nearest_record(asked, A100)
    assert near.differs == {
        "card": ("Tesla T4", "A100 80GB"),
        "batch_size": ("1", "2"),
        "target_modules": ("q_proj+k_proj+v_proj+o_proj", "all-linear"),
    }
    assert "differs: card Tesla T4 instead of A100 80GB, batch_size 1 instead of 2," in repr(near)


def test_the_nearest_run_is_the_one_with_the_fewest_differences():
    asked = published(model="qwen2.5-7b", batch_size=1, max_length=1024, attention="eager")
    assert nearest_record(asked, T4).record.config.attention == "eager"


@pytest.mark.parametrize(("batch", "length", "found"), [(1, 512, (2, 512)), (2, 4096, (1, 4096))])
def test_among_equals_the_nearest_run_is_that_of_the_nearest_bytes(batch, length, found):
    """Two runs were published, 2 x 512 and 1 x 4096 tokens."""
    lora = published(model="smollm2-135m", method="lora", upcast=False, rank=32)
    near = nearest_record(replace(lora, batch_size=batch, max_length=length), T4).record.config
    assert (near.batch_size, near.max_length) == found


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(model="llama-3.1-70b"),  # a model of which there is no run
        FinetuneConfig(model="qwen2.5-7b", method="full"),  # nor of this method
    ],
)
def test_where_nothing_is_near_the_answer_is_none(config):
    assert nearest_record(config, T4) is None


def test_fields_that_a_method_does_not_use_make_no_difference(only, written):
    line = written | {"config": written["config"] | {"method": "full", "max_length": 64}}
    only(line)
    asked = FinetuneConfig(model="embedded", method="full", rank=2, bits=8, batch_size=1)
    assert list(nearest_record(asked).differs) == ["max_length"]


def test_a_run_of_our_own_is_read_as_the_script_wrote_it(only, written):
    only(written)
    (record,) = recorded_runs()
    assert record.by == "ftcourse"
    assert record.breakdown.source == "recorded"
    assert record.allocated == record.breakdown.allocated == written["measured"]["allocated"]
    assert record.date == written["measured"]["date"]
    assert record.versions["torch"].startswith("2.")
    assert record.tokens_per_second == written["tokens_per_second"] > 0
    near = nearest_record(replace(record.config, dtype="auto"))
    assert repr(near) == f"{record}; the same choices"
    assert f"by ftcourse with torch {record.versions['torch']}" in repr(near)


def test_the_script_writes_everything_that_a_record_needs(written):
    asked = {"by", "config", "shape", "dtype", "driver", "cuda", "predicted", "measured"}
    assert asked | {"resident", "seconds", "step_seconds", "tokens_per_second"} == set(written)
    assert written["config"]["seed"] == 0
    totals = {"allocated", "reserved", "process"}
    assert totals | {"device", "date", "versions"} <= set(written["measured"])
    tokens = written["step_seconds"] * written["tokens_per_second"]
    assert tokens == pytest.approx(32, rel=0.1)


def test_runs_that_failed_and_files_about_other_things_are_no_records(only, written):
    failed = {"config": written["config"], "error": "It fits."}
    only(failed, {"lesson": "00", "seconds": 3.0})
    assert recorded_runs() == ()
    assert nearest_record(FinetuneConfig(model="embedded")) is None
