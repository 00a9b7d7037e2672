"""Every byte of a step: the layers as programs against transformers' own code on fake tensors."""

import json
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, "/tmp/w/tests/tests")
from published import PUBLISHED, smaller

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import Step
from ftcourse.memory.ledger import Ledger
from ftcourse.memory.model import Model
from ftcourse.memory.peak import around, resident_rows
from ftcourse.shape import ModelShape
from ftcourse.simulate.simulation import extend
from ftcourse.simulate.trace import trace

LOSS = "the loss"
MOMENTS = (LOSS, "the last layer's backward pass", "the first layer's backward pass")
DEVICES = {"A100": CARDS["A100 80GB"], "T4": CARDS["T4"], "CPU": Card("CPU", 2**40)}
LAYERS = 6
KEPT = {"gradient_checkpointing": False}
RUNS = {
    "lora, no checkpointing": {"method": "lora", **KEPT},
    "full": {"method": "full"},
    "full, no checkpointing": {"method": "full", **KEPT},
    "lora": {"method": "lora"},
    "lora on two modules": {"method": "lora", "target_modules": "two", **KEPT},
    "lora with dropout": {"method": "lora", "lora_dropout": 0.1, **KEPT},
    "lora, eager": {"method": "lora", "attention": "eager", **KEPT},
    "lora in 16 bits": {"method": "lora", "adapter_dtype": "bfloat16", **KEPT},
    "lora, chunked": {"method": "lora", "loss": "chunked"},
    "full, chunked": {"method": "full", "loss": "chunked", **KEPT},
    "qlora": {},
    "qlora, no checkpointing": KEPT,
    "qlora, upcast": {"upcast": True},
    "qlora, 8 bits": {"bits": 8},
}


def step_of(name, device, changes=(), **run):
    """Return a step of a small model with six layers, as a folder with its config.json."""
    values = {k: v for k, v in (smaller(PUBLISHED[name]) | dict(changes)).items() if v is not None}
    values["n_layer" if "n_layer" in values else "num_hidden_layers"] = LAYERS
    shape = ModelShape.from_config(values)
    folder = tempfile.mkdtemp(prefix="ftcourse-layer-")
    (Path(folder) / "config.json").write_text(json.dumps(values))
    choices = {"model": folder, "batch_size": 4, "max_length": 128, **run}
    choices |= {"dtype": "bfloat16"} if device == "CPU" else {}
    choices |= {"attention": "eager"} if shape.attn_logit_softcapping else {}
    if run.get("target_modules") == "two":
        names = list(shape.linears)
        choices["target_modules"] = (names[0], names[min(2, len(names) - 1)])
    return Step(FinetuneConfig(**choices), shape, DEVICES[device])


def predicted(step):
    """Return what lives at the fullest of each moment, by arithmetic."""
    history = Model(step).run().history
    rows = resident_rows(step)
    return {
        name: Ledger.of([*rows, *history.ledger(event)]) for name, event in history.tops().items()
    }


def simulated(step):
    """Return the same from two and three layers of the real code, with all layers."""
    two, three = trace(step, 2), trace(step, 3)
    scratch = around(step)
    return {
        name: Ledger.of([*extend(two[name], three[name], LAYERS), *scratch])
        for name in MOMENTS
        if name in two
    }


def total(ledger):
    return sum(ledger.parts.values())


def differences(step):
    """Return, for each moment, the bytes that the arithmetic has too many."""
    ours, theirs = predicted(step), simulated(step)
    return {name: total(ours[name]) - total(theirs[name]) for name in theirs}


ALL = [
    pytest.param(name, run, id=f"{name}, {run}", marks=pytest.mark.slow if place else ())
    for name in PUBLISHED
    for place, run in enumerate(RUNS)
]


@pytest.mark.parametrize(("name", "run"), ALL)
def test_each_moment_of_a_step_is_predicted_to_the_byte(name, run):
    found = differences(step_of(name, "A100", **RUNS[run]))
    few = FEW_BYTES.get((name, run)) or FEW_BYTES.get((name, "")) or 0
    assert {moment: abs(bytes_) <= few for moment, bytes_ in found.items()} == dict.fromkeys(
        found, True
    ), found
