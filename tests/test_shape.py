import json

import pytest
from transformers import AutoConfig

from ftcourse.errors import CourseError
from ftcourse.shape import ModelShape, load_shape
from ftcourse.shape.hub import named_shapes

NAMES = sorted(named_shapes())


@pytest.mark.parametrize("name", NAMES)
def test_each_shape_that_ships_is_one_that_transformers_reads_the_same_way(name):
    values = {k: v for k, v in named_shapes()[name].items() if k != "model_type"}
    family = named_shapes()[name]["model_type"]
    theirs = AutoConfig.for_model(family, **values)
    assert ModelShape.from_config(theirs) == ModelShape.named(name)


@pytest.mark.parametrize("name", NAMES)
def test_heads_and_groups_of_each_shape_divide_evenly(name):
    shape = ModelShape.named(name)
    assert shape.num_attention_heads % shape.num_key_value_heads == 0
    assert shape.linears["o_proj"] == shape.linears["q_proj"][::-1]


def test_llama_8b_has_the_numbers_of_its_config():
    shape = ModelShape.named("llama-3.1-8b")
    assert (shape.hidden_size, shape.num_hidden_layers, shape.vocab_size) == (4096, 32, 128256)
    assert shape.linears["k_proj"] == (4096, 1024)
    assert shape.linears["down_proj"] == (14336, 4096)
    assert not shape.tie_word_embeddings


def test_a_shape_knows_its_positions_where_the_config_says_them():
    config = named_shapes()["qwen2.5-0.5b"]
    assert ModelShape.from_config(config).max_position_embeddings == 32768
    silent = {k: v for k, v in config.items() if k != "max_position_embeddings"}
    assert ModelShape.from_config(silent).max_position_embeddings is None
    gpt2 = ModelShape.from_config(AutoConfig.for_model("gpt2", n_positions=256))
    assert gpt2.max_position_embeddings == 256


def test_an_unknown_name_is_answered_with_the_names_that_exist():
    with pytest.raises(CourseError, match=r"llama-3\.1-8b") as caught:
        ModelShape.named("llama-9")
    assert caught.value.got == "'llama-9'"


def test_an_unknown_family_is_refused_with_the_families_that_are_known():
    with pytest.raises(CourseError, match="qwen3") as caught:
        ModelShape.from_config({"model_type": "mamba"})
    assert "mamba" in caught.value.got


def test_a_folder_needs_only_its_config(tmp_path):
    values = named_shapes()["llama-3.1-8b"]
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert load_shape(str(tmp_path)) == ModelShape.named("llama-3.1-8b")


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(CourseError, match="A model folder"):
        load_shape(str(tmp_path))


def test_a_model_id_without_a_network_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CourseError, match="model='embedded'") as caught:
        load_shape("some-maker/some-model-that-is-not-cached")
    assert "some-maker/some-model-that-is-not-cached" in caught.value.got


@pytest.mark.parametrize("name", ["no such folder", "a/b/c", "", ".."])
def test_what_is_no_model_at_all_is_refused_too(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CourseError):
        load_shape(name)


def test_a_damaged_config_is_refused_in_three_parts(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CourseError):
        load_shape(str(tmp_path))


def test_a_config_that_lacks_a_number_is_refused_in_three_parts():
    with pytest.raises(CourseError):
        ModelShape.from_config({"model_type": "llama", "hidden_size": 64})
