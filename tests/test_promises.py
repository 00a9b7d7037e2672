"""What a run promises: nobody else's files, whole checkpoints only, one run at a time, our errors.

Each run is a few steps on short texts, so that a kill, a full disk or damage can be tried often.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import some_of
from filelock import FileLock
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.simulate import simulate_memory
from ftcourse.train import finetune
from ftcourse.train.run import LOCK, RUN_FILE

RECORDS = [{"prompt": f"Drone {n}?", "completion": f"It flies {n} miles."} for n in range(8)]
TINY = {"method": "lora", "rank": 2, "batch_size": 1, "max_length": 32, "learning_rate": 1e-3}
WEIGHTS = "adapter_model.safetensors"


def tiny(**changes):
    return FinetuneConfig(**{**TINY, "max_steps": 12, **changes})


def files_of(folder):
    """Return the bytes of every file below a folder, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


class Stopped(BaseException):
    """As a kill: nothing of ours catches it."""


class StopAt(TrainerCallback):
    """Stops a run at an event of a step."""

    def __init__(self, event, step):
        def stop(args, state, control, **_):
            if state.global_step == step:
                raise Stopped

        setattr(self, event, stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finetune(tiny(), RECORDS, folder)
    return folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        finetune(tiny(), RECORDS, folder, callbacks=[StopAt("on_step_end", 11)])
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The folder of a run that stopped after its first checkpoint, that of step 10."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def resumed(folder, **changes):
    finetune(tiny(**changes), RECORDS, folder)
    return (folder / WEIGHTS).read_bytes()


# Other people's files


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "run.json",
        "README.md",
        "config.json",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "checkpoints/checkpoint-5/model.safetensors",
        "checkpoints/checkpoint-final/x",
    ],
)
def test_a_folder_with_somebody_elses_files_is_refused_before_anything_is_written(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"mine": 1}', encoding="utf-8")
    before = files_of(tmp_path)
    with pytest.raises(CourseError, match="new or empty"):
        finetune(tiny(), RECORDS, tmp_path)
    assert files_of(tmp_path) == before
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    "content", ["[]", "null", "{", "", '{"config": 1, "data": "x"}', "[" * 9999]
)
def test_a_damaged_run_file_is_refused_and_stays(content, stopped):
    (stopped / RUN_FILE).write_text(content, encoding="utf-8")
    before = files_of(stopped)
    with pytest.raises(CourseError, match="damaged, or not ours"):
        resumed(stopped)
    assert files_of(stopped) == before


def test_a_file_put_into_a_runs_folder_is_never_overwritten(stopped, whole):
    (stopped / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(CourseError, match=r"README\.md"):
        resumed(stopped)
    assert (stopped / "README.md").read_text(encoding="utf-8") == "mine"
    (stopped / "README.md").unlink()
    assert resumed(stopped) == (whole / WEIGHTS).read_bytes()  # no step was lost


def test_a_checkpoint_that_the_run_did_not_make_is_passed_over_and_kept(stopped, whole):
    mine = stopped / "checkpoints" / "checkpoint-11"
    shutil.copytree(stopped / "checkpoints" / "checkpoint-10", mine)
    marker = json.loads((mine / "whole.json").read_text(encoding="utf-8"))
    (mine / "whole.json").write_text(json.dumps(marker | {"run": "other"}), encoding="utf-8")
    before = files_of(mine)
    with pytest.warns(UserWarning, match="another run made it"):
        assert resumed(stopped) == (whole / WEIGHTS).read_bytes()
    assert files_of(mine) == before


def test_a_refused_run_leaves_no_trace(tmp_path):
    with pytest.raises(CourseError, match="float16"):
        finetune(tiny(dtype="float16"), RECORDS, tmp_path / "new" / "run")
    assert not (tmp_path / "new" / "run").exists()


# Whole checkpoints only


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def halve(path):
    weights = load_file(path)
    kept = {name: weights[name] for name in sorted(weights)[::2]}
    save_file(kept, path, metadata={"format": "pt"})


DAMAGES = [
    (damage, name)
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth", WEIGHTS)
    for damage in (truncate, empty, flip, Path.unlink)
] + [(halve, WEIGHTS), (empty, "whole.json"), (Path.unlink, "whole.json")]
# Each kind of damage.
SOME_DAMAGES = [
    (truncate, "optimizer.pt"),
    (empty, "scheduler.pt"),
    (flip, WEIGHTS),
    (Path.unlink, "whole.json"),
]


@pytest.mark.parametrize(
    "case", some_of(DAMAGES, SOME_DAMAGES), ids=lambda case: f"{case[0].__name__} {case[1]}"
)
def test_a_damaged_checkpoint_is_passed_over_and_said_so(case, whole, stopped):
    damage, name = case
    damage(stopped / "checkpoints" / "checkpoint-10" / name)
    with pytest.warns(UserWarning, match="checkpoint-10 is passed over"):
        assert resumed(stopped) == (whole / WEIGHTS).read_bytes()


def test_an_older_whole_checkpoint_is_taken_where_the_newest_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("ftcourse.train.checkpoints.shutil.rmtree", lambda *a, **k: None)
    steps = {"max_steps": 22}
    with pytest.raises(Stopped):
        finetune(tiny(**steps), RECORDS, tmp_path, callbacks=[StopAt("on_step_end", 21)])
    monkeypatch.undo()
    empty(tmp_path / "checkpoints" / "checkpoint-20" / "trainer_state.json")
    seen = StopAt("on_step_end", 11)
    with pytest.warns(UserWarning, match="checkpoint-20"), pytest.raises(Stopped):
        finetune(tiny(**steps), RECORDS, tmp_path, callbacks=[seen])  # begins at step 10


@pytest.mark.parametrize("steps", some_of([12, 13], [13]))  # 8 records: neither ends an epoch
def test_a_run_that_stopped_after_its_last_step_takes_none_more(steps, tmp_path, monkeypatch):
    run = finetune(tiny(max_steps=steps), RECORDS, tmp_path / "whole")

    def stop(*_):
        raise Stopped

    monkeypatch.setattr("ftcourse.train.trainer.save_result", stop)
    with pytest.raises(Stopped):
        finetune(tiny(max_steps=steps), RECORDS, tmp_path / "run")
    monkeypatch.undo()
    again = finetune(tiny(max_steps=steps), RECORDS, tmp_path / "run")
    assert [entry["loss"] for entry in again.history] == [entry["loss"] for entry in run.history]
    assert again.trained_parameters == run.trained_parameters
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_damaged_weights_of_a_finished_run_are_refused_by_name(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    halve(folder / WEIGHTS)
    with pytest.raises(CourseError, match=WEIGHTS):
        resumed(folder)


def test_other_weights_in_the_base_model_are_noticed(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(course_path("data/model"), base)
    config = tiny(model=str(base))
    finetune(config, RECORDS, tmp_path / "run")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CourseError, match="other weights in the base model"):
        finetune(config, RECORDS, tmp_path / "run")


# One run at a time


def test_a_second_run_is_told_who_holds_the_folder(tmp_path):
    folder = tmp_path / "run"
    seen = []

    class Second(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if not seen:
                with pytest.raises(CourseError) as caught:
                    finetune(tiny(), RECORDS, folder)
                seen.append(caught.value.got)

    finetune(tiny(), RECORDS, folder, callbacks=[Second()])
    assert f"process {os.getpid()}" in seen[0]
    assert (folder / WEIGHTS).exists()


def test_a_lock_that_a_killed_process_left_behind_holds_nobody(tmp_path):
    code = f"""
from filelock import FileLock
lock = FileLock({str(tmp_path / LOCK)!r})
lock.acquire()
print("locked", flush=True)
input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert holder.stdout.readline().strip() == b"locked"
    with pytest.raises(CourseError, match="another process"):
        finetune(tiny(), RECORDS, tmp_path)
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert (tmp_path / LOCK).exists()
    assert resumed(tmp_path)


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(Stopped):
        finetune(tiny(), RECORDS, tmp_path, callbacks=[StopAt("on_step_end", 2)])
    with FileLock(tmp_path / LOCK, timeout=0):
        pass


def in_one_process(what, scratch, **asked):
    """Return what ``one_process.py`` found in a process of its own, with one thread."""
    asked |= {"what": what, "scratch": str(scratch), "config": vars(tiny()), "records": RECORDS}
    program = Path(__file__).with_name("one_process.py")
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "0"}
    options = {"input": json.dumps(asked), "text": True, "encoding": "utf-8", "env": env}
    done = subprocess.run([sys.executable, program], timeout=900, stdout=subprocess.PIPE, **options)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.extra
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_two_processes_one_trains_and_the_other_is_refused(whole, tmp_path):
    found = in_one_process("two", tmp_path)
    assert found["code"] == 0
    assert f"process {found['child']}" in found["said"][0]  # the same run again
    assert "accepted" not in found["said"]  # another one
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


# A full disk


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def torch_fails(*_, **__):
    raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/1")


def safetensors_fails(*_, **__):
    from safetensors import SafetensorError

    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


MOMENTS = {
    "the lock": ("ftcourse.train.run.FileLock.acquire", no_space),
    "run.json": ("ftcourse.train.trainer.write_run", no_space),
    "the optimizer": ("torch.save", torch_fails),
    "the adapter in a checkpoint": ("peft.PeftModel.save_pretrained", safetensors_fails),
    "the mark of a whole checkpoint": ("ftcourse.train.checkpoints.write_whole", no_space),
    "the result's weights": ("ftcourse.train.trainer.save_result", safetensors_fails),
    "the tokenizer": ("transformers.PreTrainedTokenizerBase.save_pretrained", no_space),
    "run.json at the end": ("ftcourse.train.result.write_run", no_space),
}


# At the start, in a checkpoint and at the end.
SOME_MOMENTS = ["run.json", "the optimizer", "the result's weights"]


@pytest.mark.parametrize("moment", some_of(MOMENTS, SOME_MOMENTS))
def test_a_full_disk_is_one_error_and_the_next_call_goes_on(moment, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(*MOMENTS[moment])
    with pytest.raises(CourseError) as caught:
        finetune(tiny(), RECORDS, tmp_path / "run")
    monkeypatch.undo()
    assert "room on the disk" in caught.value.must
    assert "free" in caught.value.got
    assert resumed(tmp_path / "run") == (whole / WEIGHTS).read_bytes()


# A loss that is no number


def test_a_loss_that_is_no_number_ends_the_run_before_its_checkpoint(tmp_path, monkeypatch):
    from transformers import Trainer

    real, count = Trainer.compute_loss, []

    def compute_loss(self, *args, **kwargs):
        count.append(1)
        return real(self, *args, **kwargs) * (float("nan") if len(count) > 11 else 1)

    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)
    with pytest.raises(CourseError, match="each step is a number") as caught:
        finetune(tiny(), RECORDS, tmp_path / "run")
    assert "step 12" in caught.value.got
    assert "learning_rate" in caught.value.do
    names = [path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")]
    assert names == ["checkpoint-10"]
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_base_weights_that_are_no_numbers_are_suspected_at_the_first_step(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(course_path("data/model"), base)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] *= torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CourseError, match="base weights") as caught:
        finetune(tiny(model=str(base)), RECORDS, tmp_path / "run")
    assert "step 1" in caught.value.got


# Kills at the program's own file writes


@pytest.mark.extra
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_at_any_of_its_writes_ends_as_if_it_never_was(whole, tmp_path):
    found = in_one_process("kill", tmp_path, stride=1)
    assert found["code"] == 0
    assert found["writes"] > 20
    assert set(map(tuple, found["tries"].values())) == {(9, 0)}
    for number in found["tries"]:
        weights = (tmp_path / f"run-{number}" / WEIGHTS).read_bytes()
        assert weights == (whole / WEIGHTS).read_bytes(), number


# What memory was once predicted or simulated too low

ONE_BLOCK = {"target_modules": ("down_proj",), "gradient_checkpointing": False}


TOO_LOW = [
    {"method": "full", "gradient_accumulation_steps": 4, "batch_size": 1, "max_length": 64},
    {"method": "full", "gradient_accumulation_steps": 2, "gradient_checkpointing": False},
    {"method": "lora", **ONE_BLOCK},
    {"method": "qlora", **ONE_BLOCK},
    {"method": "full", "loss": "chunked", "gradient_checkpointing": False, "max_length": 512},
]


@pytest.mark.parametrize(
    "run",
    some_of(TOO_LOW, [TOO_LOW[0], TOO_LOW[3]]),
    ids=lambda run: " ".join(map(str, run.values())),
)
def test_predicted_simulated_and_measured_agree_to_the_byte(run, write_shape):
    folder = write_shape(vocab_size=65_536, hidden_size=64, intermediate_size=192)
    config = FinetuneConfig(model=folder, **{"batch_size": 2, "max_length": 128, **run})
    predicted, measured = predict_memory(config).allocated, measure_memory(config).allocated
    assert predicted == simulate_memory(config).allocated == measured
