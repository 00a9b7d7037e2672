import dataclasses
import json

import pytest

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.errors import CourseError
from ftcourse.shape import ModelShape

LAYER = ModelShape.named("llama-3.1-8b").linears


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("rank", -8),
        ("rank", 2.5),
        ("rank", "8"),
        ("rank", None),
        ("rank", True),
        ("alpha", 0),
        ("alpha", -1),
        ("alpha", float("nan")),
        ("alpha", float("inf")),
        ("target_modules", []),
        ("target_modules", ""),
        ("target_modules", 3),
        ("double_quant", "no"),
        ("seed", -1),
        ("bits", 3),
        ("bits", 16),
        ("bits", "4"),
        ("method", "dora"),
        ("method", "LoRA"),
        ("method", None),
        ("quant_type", "int4"),
        ("dtype", "half"),
        ("adapter_dtype", "auto"),
        ("optimizer", "adam"),
        ("attention", "flash"),
        ("loss", "none"),
        ("batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("max_length", 0),
        ("max_steps", 0),
        ("learning_rate", 0),
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("lora_dropout", 1.0),
        ("lora_dropout", -0.1),
    ],
)
def test_a_value_that_cannot_work_is_refused_in_three_parts(field, value):
    with pytest.raises(CourseError) as caught:
        FinetuneConfig(**{field: value})
    must, got, do = caught.value.args
    assert must.endswith(".")
    assert field in must
    assert field in got
    assert do.endswith(".")


def test_a_refused_choice_is_told_with_the_choices_and_the_default():
    with pytest.raises(CourseError) as caught:
        FinetuneConfig(method="adapter")
    assert str(caught.value) == (
        "method is one of 'full', 'lora', 'qlora'.\n"
        "  got: method='adapter'\n"
        "  do:  Leave it out for the default, 'qlora'."
    )


def test_the_defaults_are_the_settled_ones():
    config = FinetuneConfig()
    assert (config.model, config.method, config.rank, config.alpha) == ("embedded", "qlora", 16, 32)
    assert (config.bits, config.quant_type, config.double_quant) == (4, "nf4", True)
    assert config.optimizer == "adamw_torch_fused"
    assert config.target_modules == "all-linear"


def test_whole_numbers_of_other_types_are_welcome_where_they_mean_the_same():
    assert FinetuneConfig(alpha=16).alpha == 16
    assert FinetuneConfig(target_modules=["q_proj", "v_proj"]).target_modules == (
        "q_proj",
        "v_proj",
    )


def test_a_config_is_frozen_and_can_stand_in_a_set():
    config = FinetuneConfig(target_modules=["q_proj"])
    with pytest.raises(
        dataclasses.FrozenInstanceError, match=r"replace\(config, rank=8\)"
    ) as caught:
        config.rank = 8
    assert isinstance(caught.value, CourseError)
    assert len({config, FinetuneConfig(target_modules=["q_proj"])}) == 1


def test_a_config_comes_back_whole_from_json():
    config = FinetuneConfig(target_modules=["q_proj", "v_proj"], rank=4)
    assert FinetuneConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_all_linear_means_every_linear_module_of_the_layer():
    assert adapted_modules(FinetuneConfig(method="lora"), LAYER) == list(LAYER)


def test_a_full_fine_tune_has_no_adapter():
    assert adapted_modules(FinetuneConfig(method="full"), LAYER) == []


def test_one_name_and_several_names_are_both_a_choice_of_modules():
    assert adapted_modules(FinetuneConfig(target_modules="q_proj"), LAYER) == ["q_proj"]
    chosen = adapted_modules(FinetuneConfig(target_modules=["q_proj", "v_proj"]), LAYER)
    assert chosen == ["q_proj", "v_proj"]


def test_an_unknown_target_module_is_answered_with_the_names_that_exist():
    with pytest.raises(CourseError) as caught:
        adapted_modules(FinetuneConfig(target_modules=["q_proj", "c_attn"]), LAYER)
    assert "c_attn" in caught.value.got
    assert "q_proj" not in caught.value.got
    assert all(name in caught.value.do for name in LAYER)


def test_a_rank_above_the_width_of_a_layer_warns_and_says_why():
    with pytest.warns(UserWarning, match=r"rank 2048 is above the width of k_proj \(1024\)"):
        adapted_modules(FinetuneConfig(rank=2048), LAYER)


def test_a_rank_up_to_the_width_of_every_layer_does_not_warn(recwarn):
    adapted_modules(FinetuneConfig(rank=1024), LAYER)
    assert not recwarn


@pytest.mark.parametrize("method", ["full", "lora"])
def test_fp32_casts_are_refused_where_they_would_double_the_whole_model(method):
    with pytest.raises(CourseError, match="goes with method='qlora'"):
        FinetuneConfig(method=method, upcast=True)
