"""Configs that were published, one for each model family, and small ones made from them."""

from importlib.metadata import version

import pytest
from packaging.version import Version


def config_of(model_type, hidden, middle, layers, heads, keys, vocab, **more):
    """Return a config.json in the words of most families."""
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": middle,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocab,
        "pad_token_id": 0,
        **more,
    }


TIED = {"tie_word_embeddings": True}
GELU = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh"}
MIXTURE = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
PUBLISHED = {
    "Llama-3.2-1B": config_of("llama", 2048, 8192, 16, 32, 8, 128256, **TIED),
    "Mistral-7B-v0.3": config_of("mistral", 4096, 14336, 32, 32, 8, 32768),
    "Qwen2.5-0.5B": config_of("qwen2", 896, 4864, 24, 14, 2, 151936, **TIED),
    "Qwen3-0.6B": config_of("qwen3", 1024, 3072, 28, 16, 8, 151936, head_dim=128, **TIED),
    "SmolLM3-3B": config_of("smollm3", 2048, 11008, 36, 16, 4, 128256),
    "granite-3.1-2b": config_of(
        "granite", 2048, 8192, 40, 32, 8, 49155, logits_scaling=8.0, **TIED
    ),
    "gemma-2b": config_of("gemma", 2048, 16384, 18, 8, 1, 256000, head_dim=256),
    "gemma-2-2b": config_of("gemma2", 2304, 9216, 26, 8, 4, 256000, **GELU),
    "gemma-3-1b": config_of("gemma3_text", 1152, 6912, 26, 4, 1, 262144, **GELU),
    "OLMo-1B": config_of("olmo", 2048, 8192, 16, 16, 16, 50304, **TIED),
    "OLMo-2-1B": config_of("olmo2", 2048, 8192, 16, 16, 16, 100352),
    "Phi-3-mini": config_of("phi3", 3072, 8192, 32, 32, 32, 32064),
    "phi-1_5": config_of("phi", 2048, 8192, 24, 32, None, 51200, partial_rotary_factor=0.5),
    "stablelm-2-1_6b": config_of("stablelm", 2048, 5632, 24, 32, 32, 100352, use_qkv_bias=True),
    "pythia-1b": config_of("gpt_neox", 2048, 8192, 16, 8, None, 50304, rotary_pct=0.25),
    "gpt2": {"model_type": "gpt2", **GPT2},
    "Mixtral-8x7B": config_of(
        "mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2
    ),
    "Qwen3-30B-A3B": config_of("qwen3_moe", 2048, 6144, 48, 32, 4, 151936, head_dim=128, **MIXTURE),
}


def smaller(published, **changes):
    """Return the same config with two small layers."""
    gpt2 = published["model_type"] == "gpt2"
    small = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256} if gpt2 else {}
    if not gpt2:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        small = dict(zip(names, (64, 96, 2, 4), strict=True))
        groups = published["num_key_value_heads"] == published["num_attention_heads"]
        small["num_key_value_heads"] = published["num_key_value_heads"] and (4 if groups else 2)
    sizes = {
        "head_dim": 32,
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "vocab_size": 512,
    }
    return published | small | {k: v for k, v in sizes.items() if k in published} | changes


SMALL = {name: smaller(config) for name, config in PUBLISHED.items()}
UNUSUAL = {
    "biases everywhere": smaller(PUBLISHED["Llama-3.2-1B"], attention_bias=True, mlp_bias=True),
    "granite with biases": smaller(PUBLISHED["granite-3.1-2b"], attention_bias=True, mlp_bias=True),
    "an untied gemma": smaller(PUBLISHED["gemma-2b"], tie_word_embeddings=False),
    "an untied OLMo": smaller(PUBLISHED["OLMo-1B"], tie_word_embeddings=False),
    "a GPT-2 with its own width": smaller(PUBLISHED["gpt2"], n_inner=100),
    "a GPT-2 that leaves its positions unsaid": smaller(PUBLISHED["gpt2"], n_positions=None),
    "a Pythia with another family's word": smaller(PUBLISHED["pythia-1b"], num_key_value_heads=2),
    "a NeoX without biases": smaller(PUBLISHED["pythia-1b"], attention_bias=False),
    "a Phi with groups": smaller(PUBLISHED["phi-1_5"], num_key_value_heads=2),
}
"""Small configs with a choice that is not the family's usual one."""


def skip_old_experts(name):
    """Skip a mixture where transformers keeps a byte more for each choice of an expert."""
    if "experts" in str(PUBLISHED[name]) and Version(version("transformers")) < Version("5.18"):
        pytest.skip("before transformers 5.18, experts mask tokens that are not there")
