"""The ways to train a part of a model: each against peft, or against other code for the same."""

import copy

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from torch import nn

from ftcourse.adapters import (
    IA3,
    Bottleneck,
    PrefixTuning,
    PromptTuning,
    add_bottlenecks,
    add_ia3,
    train_norms,
)
from ftcourse.errors import CourseError
from ftcourse.loop import train_on

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 16},
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "vocab_size": 64,
        "resid_pdrop": 0,
        "embd_pdrop": 0,
        "attn_pdrop": 0,
    },
}
IA3_MODULES = {"gpt2": (["c_attn", "mlp.c_proj"], ["mlp.c_proj"])}
NORMS = {
    "gpt2": ["ln_1", "ln_2", "ln_f"],
    "qwen3": ["input_layernorm", "post_attention_layernorm", "norm", "q_norm", "k_norm"],
}
USUAL_NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(family, real_model):
    torch.manual_seed(0)
    return real_model(FAMILIES[family], device="cpu").train()


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(1)
    found = []
    for length in (9, 12, 7, 12, 5, 8, 9, 6, 11, 10):
        ids = torch.randint(3, 64, (3, length), generator=generator)
        found.append({"input_ids": ids, "labels": ids.clone()})
        found[-1]["labels"][0, :3] = -100
    return found


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def pairs(ours, theirs):
    """Return the trained parameters of both models, theirs in the shape of ours."""
    ours, theirs = trained(ours), trained(theirs)
    assert sum(p.numel() for p in ours) == sum(p.numel() for p in theirs)
    return [(a, b) for a, b in zip(ours, theirs, strict=True)]


def apart(ours, theirs, what):
    """Return by how much both models differ at most, in the parameters or their gradients."""
    both = [(what(a), what(b)) for a, b in pairs(ours, theirs)]
    return max((a.reshape(-1) - b.reshape(-1)).abs().max().item() for a, b in both)
