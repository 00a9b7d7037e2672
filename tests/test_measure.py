import json

import pytest
import torch
from bitsandbytes.optim import GlobalOptimManager
from torch.utils._python_dispatch import _get_current_dispatch_mode as dispatch_mode
from transformers import TrainerCallback

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.measure import MemoryMeter, measure_memory
from ftcourse.memory import PARTS, predict_memory
from ftcourse.models import save_random_model
from ftcourse.train import finetune


@pytest.mark.slow
def test_the_meter_measures_the_very_run_and_changes_nothing():
    dialogues = load_dialogues("train")[:32]
    config = FinetuneConfig(max_steps=4, batch_size=4, max_length=128)
    meter = MemoryMeter()
    metered = finetune(config, dialogues, callbacks=[meter])
    plain = finetune(config, dialogues)
    assert metered.history == plain.history
    assert meter.breakdown.allocated == max(sum(live.values()) for live in meter.timeline)
    assert all(tuple(live) == PARTS for live in meter.timeline)


@pytest.fixture(scope="module")
def full():
    """Return the meter of a run that trains all weights."""
    meter = MemoryMeter()
    config = FinetuneConfig(method="full", max_steps=2, gradient_checkpointing=False)
    finetune(config, load_dialogues("train")[:16], callbacks=[meter])
    return meter


def test_the_meter_has_the_peak_of_each_phase_and_knows_in_which_one_the_highest_lies(full):
    highest = {phase: sum(parts.values()) for phase, parts in full.peaks.items()}
    phases = ["the forward pass", "the loss", "the backward pass", "the optimizer's step"]
    assert list(highest) == phases
    assert highest[full.breakdown.moment] == full.breakdown.allocated == max(highest.values())
    assert full.peaks["the forward pass"]["gradients"] == 0
    held = [parts["activations"] for parts in full.peaks.values()]
    assert held[3] < held[0] <= held[1]


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_measured_peak_has_the_name_that_the_arithmetic_gives_it(checkpointing):
    for length in (16, 256):
        config = FinetuneConfig(max_length=length, gradient_checkpointing=checkpointing)
        measured, predicted = measure_memory(config).moment, predict_memory(config).moment
        assert predicted.endswith(measured.removeprefix("the "))  # it also says which layer's


def test_the_timeline_shows_gradients_come_and_activations_go(full):
    peak = max(full.timeline, key=lambda live: live["gradients"])
    assert peak["gradients"] == peak["weights"]
    assert full.timeline[0]["gradients"] == 0
    assert len({live["optimizer"] for live in full.timeline[-100:]}) == 1


def test_a_measurement_on_the_cpu_says_what_it_counted(write_shape):
    measured = measure_memory(FinetuneConfig(model=write_shape(), max_length=16))
    assert "counted one by one" in repr(measured)
    assert measured.device == "CPU"
    assert set(measured.versions) == {"torch", "transformers", "peft", "bitsandbytes"}
    assert measured.reserved is None


def test_the_embedded_model_takes_the_predicted_bytes():
    config = FinetuneConfig(batch_size=2, max_length=64)
    assert predict_memory(config).allocated == measure_memory(config).allocated


class FullMemory(TrainerCallback):
    """Lets the first forward pass of the second step run out of memory."""

    def on_step_begin(self, args, state, control, model, **_):
        if state.global_step == 1:
            self.model = model
            self.hooks = sum(map(hooks_of, model.modules()))
            model.get_output_embeddings().forward = self.fail

    def fail(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def hooks_of(module):
    gradients = [p._post_accumulate_grad_hooks or {} for p in module.parameters(recurse=False)]
    hooks = [module._forward_hooks, module._forward_pre_hooks, *gradients]
    return sum(map(len, hooks))


def test_after_an_error_in_a_metered_step_nothing_of_the_meter_stays():
    meter, failing = MemoryMeter(), FullMemory()
    config = FinetuneConfig(method="lora", max_steps=3, max_length=64, batch_size=2)
    with pytest.raises(CourseError):
        finetune(config, load_dialogues("train")[:16], callbacks=[failing, meter])
    assert meter.breakdown is None
    assert dispatch_mode() is None
    assert sum(map(hooks_of, failing.model.modules())) == failing.hooks


@pytest.mark.slow
def test_a_run_does_not_inherit_the_optimizer_choices_of_one_before(write_shape):
    """bitsandbytes keeps one list for all runs, and finds parameters by an address used again."""
    run = {"model": write_shape(), "optimizer": "adamw_8bit", "max_length": 16}
    measure_memory(FinetuneConfig(method="full", **run))
    assert GlobalOptimManager.get_instance().pid2config
    measure_memory(FinetuneConfig(method="lora", **run))
    assert not GlobalOptimManager.get_instance().pid2config  # a LoRA run overrides nothing


@pytest.mark.parametrize("model", ["a folder", "smollm2-135m"])
def test_a_step_of_random_weights_says_that_they_are_not_trained(model, write_shape, monkeypatch):
    monkeypatch.setattr("ftcourse.measure.models.save_random_model", make_small_model(write_shape))
    folder = write_shape() if model == "a folder" else model
    measured = measure_memory(FinetuneConfig(model=folder, max_length=16, batch_size=1))
    assert repr(measured).endswith(
        "weights are random, not trained: this model has none here; the bytes are the same"
    )


def make_small_model(write_shape):
    """Return a function that writes random weights of a small model, whatever it is asked for."""
    real = save_random_model
    return lambda model, folder: real(write_shape(), folder)


def test_a_step_of_trained_weights_has_no_such_note():
    assert measure_memory(FinetuneConfig(max_length=16, batch_size=1)).note == ""


GOOD = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
}


@pytest.mark.parametrize(
    ("config", "must", "got"),
    [
        ("{oops", "is a JSON object", "config.json: Expecting property name"),
        ("[1]", "is a JSON object", "a JSON list"),
        (GOOD | {"model_type": None}, "transformers can read", "does not recognize"),
        (GOOD | {"model_type": "nonsense"}, "transformers can read", "nonsense"),
        (GOOD | {"hidden_size": "64"}, "config says hidden_size", "hidden_size='64'"),
        (GOOD | {"num_hidden_layers": 0}, "config says hidden_size", "num_hidden_layers=0"),
        (GOOD | {"vocab_size": None}, "config says hidden_size", "vocab_size=None"),
        (GOOD | {"num_attention_heads": 5}, "divides hidden_size", "num_attention_heads=5"),
        (None, "holds a config.json", "without one"),
    ],
)
def test_a_folder_with_a_broken_config_is_refused_in_three_parts(config, must, got, tmp_path):
    if config:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError) as caught:
        measure_memory(FinetuneConfig(model=str(tmp_path), max_length=16))
    assert must in caught.value.must
    assert got in caught.value.got
    assert caught.value.do
