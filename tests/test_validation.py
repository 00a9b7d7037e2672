"""Validation in a run: it judges each checkpoint, keeps the best one, and can end the run."""

import hashlib
import json
import shutil

import pytest
from cases import some_of
from transformers import TrainerCallback

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues, read_records
from ftcourse.errors import CourseError
from ftcourse.evaluate import held_out_loss
from ftcourse.files import course_path
from ftcourse.train import finetune
from ftcourse.train.run import describe_run, run_name

TRAIN, HELD_OUT = load_dialogues("train")[:16], load_dialogues("validation")[:7]
# Letters make a model forget these, so that their loss only rises.
GENERAL = [{"text": text["text"]} for text in read_records(course_path("data/general.jsonl"))[:7]]
WEIGHTS = "adapter_model.safetensors"


def tiny(**changes):
    choices = {
        "method": "lora",
        "rank": 2,
        "alpha": 4,
        "batch_size": 2,
        "max_length": 128,
        "max_steps": 30,
    }
    choices |= {"learning_rate": 1e-2, "gradient_checkpointing": False, "lora_dropout": 0.1}
    return FinetuneConfig(**choices | changes)


def run(folder, callbacks=(), validation=HELD_OUT, patience=None, **changes):
    return finetune(tiny(**changes), TRAIN, folder, True, callbacks, validation, patience)


def judged(result):
    return {entry["step"]: entry["eval_loss"] for entry in result.history if "eval_loss" in entry}


class Stopped(BaseException):
    """As a kill: nothing of ours catches it."""


class StopAt(TrainerCallback):
    def __init__(self, step, event="on_step_end"):
        def stop(args, state, control, **_):
            if state.global_step == step:
                raise Stopped

        setattr(self, event, stop)


@pytest.fixture(scope="module")
def rising(tmp_path_factory):
    """A run whose validation loss only rises."""
    folder = tmp_path_factory.mktemp("rising") / "run"
    return run(folder, validation=GENERAL), folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        run(folder, [StopAt(25)], validation=GENERAL)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The folder of the same run, but stopped after step 25."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def test_the_validation_loss_is_the_held_out_loss_of_the_weights_that_are_kept(rising):
    result, _ = rising
    losses = judged(result)
    assert list(losses) == [10, 20, 30]
    assert result.best_step == min(losses, key=losses.get) == 10
    # The same sum over the same tokens, in batches of another size.
    found = held_out_loss(result.model, result.tokenizer, GENERAL, 128)
    assert found == pytest.approx(losses[10], rel=1e-5)
    assert "weights of step 10: lowest" in repr(result)


def test_only_the_best_and_the_last_checkpoint_stay_on_the_disk(rising):
    _, folder = rising
    names = {path.name for path in folder.glob("checkpoints/checkpoint-*")}
    assert names == {"checkpoint-10", "checkpoint-30"}
    best = folder / "checkpoints" / "checkpoint-10" / WEIGHTS
    assert best.read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_run_ends_when_patience_does_and_says_so(tmp_path):
    result = run(tmp_path, validation=GENERAL, patience=1)
    assert len(result.history) == 20
    assert result.best_step == 10
    assert "20 of 30 steps" in repr(result)
    again = run(tmp_path, validation=GENERAL, patience=1)  # is loaded
    assert again.history == result.history


# While nothing was judged, after that, and while patience runs; with and without patience.
KILLED = [(rows, step) for rows in ((HELD_OUT, None), (GENERAL, 2)) for step in (11, 20, 25)]


@pytest.mark.parametrize(
    "case", some_of(KILLED, KILLED[4:5]), ids=lambda case: f"{case[0][1]} {case[1]}"
)
def test_a_killed_run_ends_as_if_never_killed_bit_for_bit(case, tmp_path):
    (validation, patience), step = case
    choices = {"validation": validation, "patience": patience, "max_steps": 40 if patience else 30}
    whole = run(tmp_path / "whole", **choices)
    with pytest.raises(Stopped):
        run(tmp_path / "run", [StopAt(step)], **choices)
    resumed = run(tmp_path / "run", **choices)
    assert len(resumed.history) == 30
    assert judged(resumed) == judged(whole)
    assert resumed.best_step == whole.best_step
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_run_that_patience_ended_and_a_kill_kept_from_saving_takes_no_step_more(
    tmp_path, monkeypatch
):
    choices = {"patience": 1, "validation": GENERAL}
    whole = run(tmp_path / "whole", **choices)

    def stop(*_):
        raise Stopped

    monkeypatch.setattr("ftcourse.train.trainer.save_result", stop)
    with pytest.raises(Stopped):
        run(tmp_path / "run", **choices)
    monkeypatch.undo()
    again = run(tmp_path / "run", [StopAt(20), StopAt(21)], **choices)
    assert judged(again) == judged(whole)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_checkpoint_whose_best_one_is_damaged_does_not_count(rising, stopped):
    whole, _ = rising
    best = stopped / "checkpoints" / "checkpoint-10"
    (best / WEIGHTS).write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-20 is passed over: checkpoint-10"):
        resumed = run(stopped, validation=GENERAL)
    assert judged(resumed) == judged(whole)


def test_another_validation_set_is_refused_and_the_folder_stays(rising):
    _, folder = rising
    before = (folder / "run.json").read_bytes()
    changes = [
        {"validation": GENERAL[:3]},
        {"validation": None},
        {"patience": 2},
    ]
    for change in changes:
        with pytest.raises(CourseError, match="another validation set, or another patience"):
            run(folder, **{"validation": GENERAL} | change)
    assert (folder / "run.json").read_bytes() == before


def test_a_run_without_validation_is_called_as_before(tmp_path):
    found = describe_run(tiny(), TRAIN)
    assert set(found) == {"config", "data", "base"}
    identity = json.dumps([found[name] for name in ("config", "data", "base")], sort_keys=True)
    assert run_name(found) == hashlib.sha256(identity.encode()).hexdigest()[:16]
    result = run(tmp_path, validation=None, max_steps=10)
    assert (result.best_step, judged(result)) == (None, {})


@pytest.mark.parametrize(
    ("validation", "patience"),
    [(None, 1), ([], None), (HELD_OUT, 0), (HELD_OUT, True), (HELD_OUT, "2"), ([{}], 1), (5, None)],
    ids=str,
)
def test_what_cannot_judge_is_refused_before_anything_is_written(validation, patience, tmp_path):
    with pytest.raises(CourseError):
        run(tmp_path / "run", validation=validation, patience=patience)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_was_moved_resumes_with_its_best_checkpoint(rising, tmp_path):
    whole, folder = rising
    with pytest.raises(Stopped):
        run(tmp_path / "run", [StopAt(25)], validation=GENERAL)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert judged(run(tmp_path / "moved", validation=GENERAL)) == judged(whole)
    assert (tmp_path / "moved" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
