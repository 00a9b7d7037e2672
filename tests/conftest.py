"""Fixtures that several test files share. Published configs are in ``published.py``."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL_LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def tokenizer():
    from ftcourse.models import load_tokenizer  # here: light tests need not wait for torch

    return load_tokenizer("embedded")


@pytest.fixture
def write_config(tmp_path_factory):
    """Return a function that writes a config.json and returns its folder, which is a model."""

    def write(values):
        folder = tmp_path_factory.mktemp("model")
        values = {name: value for name, value in values.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
        return str(folder)

    return write


@pytest.fixture
def write_shape(write_config):
    """Return a function that writes a small config, with changes, and returns its folder."""
    return lambda **changes: write_config(SMALL_LLAMA | changes)


@pytest.fixture(scope="session")
def real_model():
    """Return a function that makes transformers' own model for a config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ftcourse.models import libraries_quiet

    def make(values, device="meta"):
        values = {name: value for name, value in values.items() if value is not None}
        with torch.device(device), libraries_quiet():
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))

    return make


@pytest.fixture(scope="session")
def resident():
    """Return a function that lists the tensors of a breakdown that live through every step."""

    def read(breakdown):
        rows = [row for row in breakdown.ledger if row.part in ("weights", "optimizer")]
        return sorted((row.name, row.dtype, row.bytes, row.count) for row in rows)

    return read


@pytest.fixture(scope="session")
def memory_accuracy():
    """Return the benchmark of that name, which knows runs that others published."""
    sys.path.append(str(ROOT / "benchmarks"))
    return importlib.import_module("memory_accuracy")
