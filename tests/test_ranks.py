"""Real runs of two processes on the CPU, against the arithmetic and against one process.

Each test of a run starts ``accelerate launch``.
"""

import os
import subprocess
import sys

import psutil
import pytest
import torch
from safetensors.torch import load_file

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.memory import predict_memory
from ftcourse.memory.sharding import communication
from ftcourse.models import load_base, load_finetuned
from ftcourse.ranks import launch, run_ranks
from ftcourse.train import build
from ftcourse.train.build import training_arguments

# Longer than max_length, so that all rows are alike, as the arithmetic has it.
RECORDS = [{"text": f"The printer of office {n} is green. " * 40} for n in range(32)]
STEPS = 4
# The gradients of the halves are added in another order, and float32 has 7 digits.
CLOSE = {"rel": 1e-4}


def config_of(**changes):
    choices = {"method": "full", "rank": 4, "max_steps": STEPS, "max_length": 128, "batch_size": 2}
    return FinetuneConfig(**choices | {"dtype": "float32"} | changes)


@pytest.fixture(scope="module")
def runs():
    """Runs by method and sharding, each of which is made once."""
    made = {}

    def run(method, sharding, **changes):
        key = method, sharding, *changes.items()
        if key not in made:
            made[key] = run_ranks(config_of(method=method, **changes), RECORDS, 2, sharding)
        return made[key]

    return run


EXACT = [("full", "fsdp")]
MORE = [("full", "ddp"), ("lora", "ddp"), ("lora", "fsdp"), ("qlora", "fsdp+qlora")]
EXTRA = [pytest.param(*each, marks=pytest.mark.extra) for each in MORE]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "sharding"), EXACT + EXTRA)
def test_each_rank_holds_the_predicted_bytes_to_the_byte(runs, method, sharding):
    """In each of the five parts; nothing is left over."""
    found = runs(method, sharding)
    config = config_of(method=method)
    predicted = predict_memory(config, None, 2, sharding)
    assert [rank.parts for rank in found.ranks] == [predicted.parts] * 2
    assert (found.ranks[1].world_size, found.ranks[1].sharding) == (2, sharding)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "sharding"), EXACT + EXTRA)
def test_a_step_sends_the_predicted_bytes(runs, method, sharding):
    """Counted by the sizes of the collective operations that really ran."""
    predicted = communication(config_of(method=method), 2, sharding)
    sums = {}
    for row in predicted.rows:
        size, calls = sums.get(row.collective, (0, 0))
        sums[row.collective] = size + row.bytes, calls + row.calls
    found = {row.collective: (row.bytes, row.calls) for row in runs(method, sharding).traffic.rows}
    assert found == sums


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["fsdp", pytest.param("ddp", marks=pytest.mark.extra)])
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(runs, sharding):
    two = runs("full", sharding)
    one = run_ranks(config_of(batch_size=4), RECORDS, world_size=1)
    assert (one.world_size, two.world_size) == (1, 2)
    assert two.losses == pytest.approx(one.losses, **CLOSE)
    assert one.losses[-1] < one.losses[0]


@pytest.mark.slow
def test_a_sharded_run_leaves_whole_weights_that_load_again(runs):
    found = runs("full", "fsdp")
    weights = load_file(found.output_dir / "model.safetensors")
    model = load_finetuned(config_of(), found.output_dir)
    assert {name: tuple(t.shape) for name, t in model.named_parameters()} == {
        name: tuple(t.shape) for name, t in weights.items()
    }
    before = load_finetuned(config_of(), "embedded").state_dict()
    moved = [name for name in weights if not torch.equal(weights[name], before[name])]
    assert len(moved) == len(weights)


@pytest.mark.slow
@pytest.mark.extra
def test_sharded_and_whole_processes_leave_the_same_weights(runs):
    ours, theirs = (
        load_file(runs("full", sharding).output_dir / "model.safetensors")
        for sharding in ("fsdp", "ddp")
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.extra
def test_a_sharded_adapter_loads_again(runs):
    found = runs("lora", "fsdp")
    loaded = load_finetuned(config_of(method="lora"), found.output_dir)
    adapters = {n: p for n, p in loaded.named_parameters() if "lora_B" in n}
    assert adapters
    assert all(p.abs().sum() > 0 for p in adapters.values())


@pytest.mark.slow
@pytest.mark.extra
def test_a_sharded_run_without_checkpointing_or_with_summed_batches_is_predicted(runs):
    for changes in ({"gradient_checkpointing": False}, {"gradient_accumulation_steps": 2}):
        found = runs("full", "fsdp", **changes)
        predicted = predict_memory(config_of(**changes), None, 2, "fsdp")
        assert found.ranks[0].parts == predicted.parts, changes


@pytest.mark.slow
@pytest.mark.extra
def test_in_16_bits_only_the_losses_own_bytes_differ(runs):
    """FSDP returns a loss in bfloat16; three such numbers live, of two bytes instead of four."""
    found = runs("full", "fsdp", dtype="bfloat16")
    predicted = predict_memory(config_of(dtype="bfloat16"), None, 2, "fsdp").parts
    measured = found.ranks[0].parts
    assert abs(measured.pop("activations") - predicted.pop("activations")) <= 8
    assert measured == predicted


@pytest.mark.slow
def test_the_error_of_a_rank_reaches_the_caller_and_no_process_stays():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(CourseError) as caught:
        run_ranks(config_of(model="/no/such/folder"), RECORDS)
    assert "/no/such/folder" in str(caught.value)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_launcher_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
    script += "time.sleep(60)']); print('waits', flush=True); time.sleep(60)"
    with pytest.raises(CourseError, match="out of time"):
        launch._wait([sys.executable, "-c", script], tmp_path, steps=1, ranks=2, timeout=3)
    assert psutil.Process().children(recursive=True) == []


def test_the_last_lines_of_a_launcher_that_fails_are_in_the_error(tmp_path):
    with pytest.raises(CourseError) as caught:
        launch._wait([sys.executable, "-c", "raise OSError('no port')"], tmp_path, 1, 2, 60)
    assert "no port" in caught.value.got
    assert caught.value.must == "Every process of a run ends well."


def test_a_launcher_whose_log_is_gone_still_gives_an_error(tmp_path):
    assert "exit code 3" in str(launch._failed(tmp_path, 3, late=False))


@pytest.mark.parametrize(
    ("changes", "choices", "must"),
    [
        ({}, {"sharding": "hybrid"}, "measured here"),
        ({"max_steps": 1}, {}, "measured here"),
        ({}, {"world_size": 0}, "whole number"),
        ({}, {"sharding": "zero3"}, "sharding is one of"),
        ({}, {"sharding": "fsdp+qlora"}, "shards the 4-bit weights"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_process_starts(changes, choices, must):
    with pytest.raises(CourseError, match=must):
        run_ranks(config_of(**changes), RECORDS, **choices)


@pytest.mark.slow
def test_without_the_nudge_accelerate_would_not_shard_on_cpus():
    """If this fails, accelerate shards on CPUs by itself, and ``shard_on_cpus_too`` can go."""
    code = (
        "from accelerate import Accelerator, FullyShardedDataParallelPlugin as Plugin;"
        "print(Accelerator(cpu=True, fsdp_plugin=Plugin(fsdp_version=2)).distributed_type)"
    )
    env = os.environ | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "ACCELERATE_USE_FSDP": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "MULTI_CPU" in done.stdout, done.stderr


def test_one_process_trains_on_one_gpu_where_there_are_two(monkeypatch, tmp_path):
    """transformers would give it both, and twice the records in a step."""

    def with_two(*choices, **named):
        args = training_arguments(*choices, **named)
        args._n_gpu = 2
        return args

    monkeypatch.setattr(build, "training_arguments", with_two)
    config = config_of(model="embedded")
    trainer = build.make_trainer(config, load_base(config), [], tmp_path)
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == config.batch_size
