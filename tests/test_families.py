"""Each family's arithmetic against the real model class, from configs that were published."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS
from ftcourse.loss import check_head, use_chunked_loss
from ftcourse.memory import predict_memory
from ftcourse.memory.parameters import adapter_sizes
from ftcourse.memory.step import Step
from ftcourse.models import (
    attach_adapter,
    libraries_quiet,
    linear_modules,
    load_base,
    save_random_model,
)
from ftcourse.shape import ModelShape, parameter_count
from ftcourse.shape.families import FAMILIES
from ftcourse.shape.parameters import linear_parameters


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


GELU = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh"}
PUBLISHED = {
    "Llama-3.2-1B": config_of("llama", 2048, 8192, 16, 32, 8, 128256, tie_word_embeddings=True),
    "Mistral-7B-v0.3": config_of("mistral", 4096, 14336, 32, 32, 8, 32768),
    "Qwen2.5-0.5B": config_of("qwen2", 896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
    "Qwen3-0.6B": config_of(
        "qwen3", 1024, 3072, 28, 16, 8, 151936, head_dim=128, tie_word_embeddings=True
    ),
    "SmolLM3-3B": config_of("smollm3", 2048, 11008, 36, 16, 4, 128256),
    "granite-3.1-2b": config_of(
        "granite", 2048, 8192, 40, 32, 8, 49155, tie_word_embeddings=True, logits_scaling=8.0
    ),
    "gemma-2b": config_of("gemma", 2048, 16384, 18, 8, 1, 256000, head_dim=256),
    "gemma-2-2b": config_of("gemma2", 2304, 9216, 26, 8, 4, 256000, **GELU),
    "gemma-3-1b": config_of("gemma3_text", 1152, 6912, 26, 4, 1, 262144, **GELU),
    "OLMo-1B": config_of("olmo", 2048, 8192, 16, 16, 16, 50304, tie_word_embeddings=True),
    "OLMo-2-1B": config_of("olmo2", 2048, 8192, 16, 16, 16, 100352),
    "Phi-3-mini": config_of("phi3", 3072, 8192, 32, 32, 32, 32064),
    "phi-1_5": config_of("phi", 2048, 8192, 24, 32, None, 51200, partial_rotary_factor=0.5),
    "stablelm-2-1_6b": config_of("stablelm", 2048, 5632, 24, 32, 32, 100352, use_qkv_bias=True),
    "pythia-1b": config_of("gpt_neox", 2048, 8192, 16, 8, None, 50304, rotary_pct=0.25),
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    },
    "Mixtral-8x7B": config_of(
        "mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2
    ),
    "Qwen3-30B-A3B": config_of(
        "qwen3_moe",
        2048,
        6144,
        48,
        32,
        4,
        151936,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
    ),
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


CONFIGS = PUBLISHED | {f"a small {v['model_type']}": smaller(v) for v in PUBLISHED.values()}
CONFIGS |= {
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
each_config = pytest.mark.parametrize("name", CONFIGS)
each_small = pytest.mark.parametrize("name", [n for n in CONFIGS if n not in PUBLISHED])


def real_model(values, device="meta"):
    """Return transformers' own model for a config.json."""
    values = {name: value for name, value in values.items() if value is not None}
    config = AutoConfig.for_model(**values)
    with torch.device(device), libraries_quiet():
        return AutoModelForCausalLM.from_config(config)


def test_every_family_has_a_published_config_here():
    assert {values["model_type"] for values in PUBLISHED.values()} == set(FAMILIES)


@each_config
def test_the_parameter_count_is_that_of_the_real_model_class(name):
    model = real_model(CONFIGS[name])
    assert parameter_count(ModelShape.from_config(CONFIGS[name])) == model.num_parameters()


@each_small
def test_the_quantized_weights_are_those_that_transformers_quantizes(name, tmp_path):
    values = {key: value for key, value in CONFIGS[name].items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with libraries_quiet():
        save_random_model(str(tmp_path), tmp_path / "weights")
        attention = "eager" if values["model_type"] == "gemma2" else "sdpa"
        config = FinetuneConfig(model=str(tmp_path / "weights"), attention=attention)
        model = load_base(config)
    quantized = [module for module in model.modules() if "4bit" in type(module).__name__]
    real = sum(module.in_features * module.out_features for module in quantized)
    assert linear_parameters(ModelShape.from_config(values)) == real


@each_config
def test_a_shape_is_the_same_from_the_file_and_from_transformers_config(name):
    values = {k: v for k, v in CONFIGS[name].items() if v is not None}
    theirs = ModelShape.from_config(AutoConfig.for_model(**values))
    assert theirs == ModelShape.from_config(json.loads(json.dumps(values)))


@each_config
def test_the_linear_modules_are_those_of_the_real_layer(name):
    modules = linear_modules(real_model(CONFIGS[name]))
    assert modules == ModelShape.from_config(CONFIGS[name]).linears


def trained_parameters(model):
    """Return the trained parameters' names and sizes."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


@each_small
def test_the_adapter_that_is_attached_has_the_sizes_of_the_arithmetic(name):
    shape = ModelShape.from_config(CONFIGS[name])
    config = FinetuneConfig(method="lora", rank=4, attention="eager")
    ours = trained_parameters(attach_adapter(real_model(CONFIGS[name], "cpu"), config))
    assert sorted(ours.values()) == sorted(adapter_sizes(Step(config, shape, CARDS["A100 80GB"])))


@each_small
def test_all_linear_adapts_what_peft_adapts_but_for_experts_and_routers(name):
    """peft's own ``all-linear`` has a mixture's experts and routers too, which are not linear."""
    from peft import LoraConfig, get_peft_model

    with libraries_quiet():
        ours = attach_adapter(real_model(CONFIGS[name], "cpu"), FinetuneConfig(method="lora"))
        lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        theirs = get_peft_model(real_model(CONFIGS[name], "cpu"), lora)
    theirs = trained_parameters(theirs)
    mixture = {path for path in theirs if ".experts." in path or ".gate." in path}
    assert bool(mixture) == ("num_experts_per_tok" in CONFIGS[name])
    assert set(trained_parameters(ours)) == set(theirs) - mixture


@each_small
def test_the_chunked_loss_is_the_models_own(name):
    torch.manual_seed(0)
    model = real_model(CONFIGS[name], "cpu").eval()
    ids = torch.randint(500, (2, 200))
    with torch.no_grad():
        whole = model(input_ids=ids, labels=ids).loss
        check_head(model)
        use_chunked_loss(model)
        torch.testing.assert_close(model(input_ids=ids, labels=ids).loss, whole)


def test_a_model_whose_logits_are_made_in_another_way_gets_no_chunked_loss():
    cohere = {"model_type": "cohere", "logit_scale": 0.0625, "hidden_size": 64, "vocab_size": 512}
    cohere |= {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
    with pytest.raises(CourseError, match="loss='full'"):
        check_head(real_model(cohere | {"pad_token_id": 0}, "cpu"))


def test_a_model_that_caps_its_scores_is_refused_with_attention_that_cannot(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(smaller(PUBLISHED["gemma-2-2b"])))
    for use in (predict_memory, load_base):
        with pytest.raises(CourseError, match="eager"):
            use(FinetuneConfig(model=str(tmp_path)))


def test_a_mixture_is_refused_on_a_card_without_the_product_for_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(smaller(PUBLISHED["Qwen3-30B-A3B"])))
    with pytest.raises(CourseError, match="newer card"):
        predict_memory(FinetuneConfig(model=str(tmp_path)), CARDS["T4"])


def test_a_name_that_two_modules_end_with_means_both_as_peft_has_it():
    linears = ModelShape.from_config(PUBLISHED["gpt2"]).linears
    config = FinetuneConfig(target_modules="c_proj")
    assert adapted_modules(config, linears) == ["attn.c_proj", "mlp.c_proj"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stablelm-2-1_6b", {"qk_layernorm": True}),
        ("OLMo-1B", {"clip_qkv": 8.0}),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [0]}),
    ],
)
def test_a_layer_that_is_not_the_familys_usual_one_is_refused(name, change):
    with pytest.raises(CourseError, match=next(iter(change))):
        ModelShape.from_config(PUBLISHED[name] | change)
