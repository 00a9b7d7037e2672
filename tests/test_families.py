"""Each family's arithmetic against the real model class, from configs that were published."""

import json
from collections import Counter

import pytest
import torch
from cases import some_of
from peft import LoraConfig, get_peft_model
from published import PUBLISHED, SMALL, UNUSUAL, skip_old_experts, smaller
from transformers import AutoConfig

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS
from ftcourse.live import plain
from ftcourse.loss import check_head, use_chunked_loss
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.models import attach_adapter, libraries_quiet, linear_modules, load_base
from ftcourse.shape import ModelShape, parameter_count, parameters
from ftcourse.shape.families import FAMILIES
from ftcourse.simulate import simulate_memory

CONFIGS = PUBLISHED | UNUSUAL
A100 = CARDS["A100 80GB"]

each_config = pytest.mark.parametrize("name", CONFIGS)
each_family = pytest.mark.parametrize("name", PUBLISHED)


def test_every_family_has_a_published_config_here():
    assert {values["model_type"] for values in PUBLISHED.values()} == set(FAMILIES)


@each_config
def test_names_shapes_and_counts_of_the_parameters_are_the_real_models(name, real_model):
    real = Counter((plain(n), p.shape) for n, p in real_model(CONFIGS[name]).named_parameters())
    ours = parameters(ModelShape.from_config(CONFIGS[name]))
    assert sorted((p.name, p.shape, p.count) for p in ours) == sorted(
        (name, tuple(shape), count) for (name, shape), count in real.items()
    )


@each_config
def test_the_linear_modules_are_those_of_the_real_layer(name, real_model):
    modules = linear_modules(real_model(CONFIGS[name]))
    assert modules == ModelShape.from_config(CONFIGS[name]).linears


@each_config
def test_a_shape_is_the_same_from_the_file_and_from_transformers_config(name):
    values = {k: v for k, v in CONFIGS[name].items() if v is not None}
    theirs = ModelShape.from_config(AutoConfig.for_model(**values))
    assert theirs == ModelShape.from_config(json.loads(json.dumps(values)))


def trained_parameters(model):
    """Return the names of the trained parameters."""
    return {name for name, p in model.named_parameters() if p.requires_grad}


@each_family
def test_all_linear_adapts_what_peft_adapts_but_for_experts_and_routers(name, real_model):
    """peft's own ``all-linear`` has a mixture's experts and routers too, which are not linear."""
    with libraries_quiet():
        ours = attach_adapter(real_model(SMALL[name], "cpu"), FinetuneConfig(method="lora"))
        lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        theirs = trained_parameters(get_peft_model(real_model(SMALL[name], "cpu"), lora))
    mixture = {path for path in theirs if ".experts." in path or ".gate." in path}
    assert bool(mixture) == ("num_experts_per_tok" in SMALL[name])
    assert trained_parameters(ours) == theirs - mixture


@each_family
def test_the_chunked_loss_is_the_models_own(name, real_model):
    torch.manual_seed(0)
    model = real_model(SMALL[name], "cpu").eval()
    ids = torch.randint(500, (2, 200))
    with torch.no_grad():
        whole = model(input_ids=ids, labels=ids).loss
        check_head(model)
        use_chunked_loss(model)
        torch.testing.assert_close(model(input_ids=ids, labels=ids).loss, whole)


@pytest.mark.parametrize("name", some_of(PUBLISHED, [*PUBLISHED][::4]))
def test_a_real_step_holds_the_predicted_tensors_and_bytes(name, write_config, resident):
    """The Trainer keeps the loss and the number of supervised tokens: 8 bytes more."""
    attention = "eager" if name == "gemma-2-2b" else "sdpa"
    run = {"batch_size": 8, "max_length": 128, "dtype": "bfloat16", "attention": attention}
    config = FinetuneConfig(model=write_config(SMALL[name]), **run)
    predicted, measured = predict_memory(config), measure_memory(config)
    assert resident(predicted) == resident(measured)
    assert predicted.allocated == measured.allocated


def test_a_model_whose_logits_are_made_in_another_way_gets_no_chunked_loss(real_model):
    cohere = {"model_type": "cohere", "logit_scale": 0.0625, "hidden_size": 64, "vocab_size": 512}
    cohere |= {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
    with pytest.raises(CourseError, match="loss='full'"):
        check_head(real_model(cohere | {"pad_token_id": 0}, "cpu"))


def test_a_model_that_caps_its_scores_is_refused_with_attention_that_cannot(write_config):
    config = FinetuneConfig(model=write_config(SMALL["gemma-2-2b"]))
    for use in (predict_memory, load_base):
        with pytest.raises(CourseError, match="eager"):
            use(config)


def test_a_mixture_is_refused_on_a_card_without_the_product_for_it(write_config):
    config = FinetuneConfig(model=write_config(SMALL["Qwen3-30B-A3B"]))
    with pytest.raises(CourseError, match="newer card"):
        predict_memory(config, CARDS["T4"])


def test_a_mixture_in_float32_cannot_be_simulated_and_says_so(write_config):
    config = FinetuneConfig(model=write_config(SMALL["Mixtral-8x7B"]), dtype="float32")
    with pytest.raises(CourseError, match="bfloat16"):
        simulate_memory(config, A100)


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


# --- what a GPU does in another way, against the simulation ------------------------------------


def agree(model, card, **run):
    """Assert that arithmetic and simulation of a run count the same bytes."""
    config = FinetuneConfig(model=model, **run)
    predicted, simulated = predict_memory(config, card), simulate_memory(config, card)
    assert predicted.parts == simulated.parts
    return predicted


def test_gradients_of_a_function_that_autocast_widens_are_in_fp32(write_config):
    model = write_config(SMALL["gpt2"])
    predicted = agree(model, A100, method="full", max_length=256)
    assert predicted.moment.endswith("layer's backward pass")


@pytest.mark.parametrize("card", ["T4", "A100 80GB"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_window_over_the_tokens_needs_a_mask_and_repeated_keys(card, checkpointing, write_config):
    model = write_config(SMALL["Mistral-7B-v0.3"] | {"sliding_window": 256})
    run = {"method": "lora", "max_length": 512, "gradient_checkpointing": checkpointing}
    agree(model, CARDS[card], **run)


@pytest.mark.parametrize("name", ["gpt2", "pythia-1b", "phi-1_5"])
def test_8_bit_modules_keep_the_fp32_that_a_gpu_gives_them_beside_layer_norm(name, write_config):
    agree(write_config(SMALL[name]), A100, bits=8, gradient_checkpointing=False)


def test_the_norm_of_many_wide_queries_can_be_the_widest_moment(write_config):
    model = write_config(smaller(PUBLISHED["Qwen3-0.6B"]) | {"head_dim": 128})
    agree(model, A100, method="lora", max_length=256)


@pytest.mark.parametrize(
    "name", some_of(["gemma-3-1b", "phi-1_5", "gpt2", "Qwen3-30B-A3B"], ["gpt2"])
)
def test_arithmetic_and_simulation_agree_on_the_published_model(name, write_config):
    skip_old_experts(name)
    run = {"method": "lora", "batch_size": 2, "gradient_checkpointing": False}
    agree(write_config(PUBLISHED[name]), A100, **run)


def test_the_count_of_a_tied_head_is_one(real_model):
    values = PUBLISHED["Llama-3.2-1B"]
    count = parameter_count(ModelShape.from_config(values))
    assert count == real_model(values).num_parameters()
    untied = parameter_count(ModelShape.from_config(values | {"tie_word_embeddings": False}))
    assert untied - count == 128256 * 2048
