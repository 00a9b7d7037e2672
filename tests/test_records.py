import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.files import course_path
from ftcourse.hardware import CARDS
from ftcourse.memory import records
from ftcourse.memory.records import nearest_record, recorded_runs

T4, A100 = CARDS["T4"], CARDS["A100 80GB"]
GRID = Path(__file__).parents[1] / "benchmarks" / "measure_grid.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return what the measuring script writes down of one small run on this machine."""
    spec = importlib.util.spec_from_file_location("measure_grid", GRID)
    grid = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grid)
    config = FinetuneConfig(model="embedded", batch_size=1, max_length=32)
    scratch = tmp_path_factory.mktemp("scratch")
    (scratch / "embedded").symlink_to(course_path("data/model"))
    return json.loads(json.dumps(grid.measure(config, scratch)))


@pytest.fixture
def only(monkeypatch, tmp_path):
    """Let the recorded runs be the given lines alone."""

    def write(*lines):
        (tmp_path / "card-2026-11-21.jsonl").write_text(
            "".join(json.dumps(x) + "\n" for x in lines)
        )
        monkeypatch.setattr(records, "course_path", lambda name: tmp_path)
        recorded_runs.cache_clear()

    yield write
    recorded_runs.cache_clear()


def published(**choices):
    """Return the choices of fitcheck's runs on its T4."""
    run = FinetuneConfig(
        method="qlora",
        dtype="float16",
        upcast=True,
        double_quant=False,
        optimizer="adamw_torch",
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    )
    return replace(run, **choices)


def test_every_published_line_is_a_record_of_others():
    lines = (course_path("data/measured") / "published_t4.jsonl").read_text().splitlines()
    theirs = [record for record in recorded_runs() if record.by == "fitcheck"]
    sizes = [json.loads(line)["allocated_mib"] * 2**20 for line in lines]
    assert [record.allocated for record in theirs] == pytest.approx(sizes, abs=1)
    assert {record.card for record in theirs} == {"Tesla T4"}
    assert {record.date[:8] for record in theirs} == {"2026-09-"}
    assert {record.note for record in theirs} == {"its own training loop, without autocast"}


def test_a_publisher_s_own_words_are_completed_with_what_it_says_of_all_its_runs(only):
    shape = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    }
    said = {"method": "lora", "rank": 8, "batch_size": 1, "max_length": 1304}
    source = "github:Lightning-AI/litgpt@2685705:tutorials/resource-tables.md"
    only({"model": "Llama-2-7b", "shape": shape, **said, "allocated_gb": 21.3, "source": source})
    asked = FinetuneConfig(model="llama-2-7b", **said, gradient_checkpointing=False)
    near = nearest_record(replace(asked, adapter_dtype="bfloat16"), CARDS["A100 40GB"])
    assert list(near.differs) == ["optimizer"]
    assert near.record.allocated == 21_300_000_000
    said = "recorded: 19.84 GiB on NVIDIA A100-SXM4-40GB, 2023-10, by litgpt with torch 2.1.0; "
    assert repr(near).startswith(said)


def test_a_run_that_was_published_finds_itself():
    near = nearest_record(published(model="qwen2.5-7b", batch_size=1, max_length=1024), T4)
    assert near.differs == {}
    assert repr(near) == (
        "recorded: 10.34 GiB on Tesla T4, 2026-09-21, by fitcheck; differs: "
        "its own training loop, without autocast"
    )


def test_what_differs_is_said_with_both_values():
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


def test_choices_that_a_method_does_not_use_make_no_difference(only, written):
    line = written | {"config": written["config"] | {"method": "full", "max_length": 64}}
    only(line)
    asked = FinetuneConfig(model="embedded", method="full", rank=2, bits=8, batch_size=1)
    assert list(nearest_record(asked).differs) == ["max_length"]


def test_a_run_of_our_own_is_read_as_the_script_wrote_it(only, written):
    only(written)
    (record,) = recorded_runs()
    assert record.by == "ftcourse"
    assert record.breakdown.source == "recorded"
    assert record.allocated == record.breakdown.allocated == written["allocated"]
    assert record.date == written["measured"]["date"]
    assert record.versions["torch"].startswith("2.")
    assert record.tokens_per_second == written["tokens_per_second"] > 0
    near = nearest_record(replace(record.config, dtype="auto"))
    assert repr(near) == f"{record}; the same choices"
    assert f"by ftcourse with torch {record.versions['torch']}" in repr(near)


def test_the_script_writes_down_what_the_campaign_asks_for(written):
    asked = {"config", "shape", "dtype", "driver", "cuda", "predicted", "measured", "allocated"}
    assert asked | {"resident", "seconds", "step_seconds", "tokens_per_second"} == set(written)
    assert written["config"]["seed"] == 0
    assert {"reserved", "process", "device", "date", "versions"} <= set(written["measured"])
    tokens = written["step_seconds"] * written["tokens_per_second"]
    assert tokens == pytest.approx(32, rel=0.1)


def test_runs_that_failed_and_files_about_other_things_are_no_records(only, written):
    failed = {"config": written["config"], "error": "It fits."}
    only(failed, {"lesson": "00", "seconds": 3.0})
    assert recorded_runs() == ()
    assert nearest_record(FinetuneConfig(model="embedded")) is None
