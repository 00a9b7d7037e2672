import json

import pytest
import torch
from transformers.utils import logging

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.hardware import CARDS
from ftcourse.models import (
    attach_adapter,
    libraries_quiet,
    linear_modules,
    load_base,
    load_tokenizer,
    locate,
    quantization,
    weights_dtype,
)


def test_pickled_weights_are_refused_before_they_are_opened(tmp_path):
    (tmp_path / "config.json").write_text(
        (course_path("data/model") / "config.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04boom")
    with pytest.raises(CourseError, match="safetensors") as caught:
        load_base(FinetuneConfig(model=str(tmp_path)))
    assert "pytorch_model.bin" in caught.value.got


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder"])
def test_a_missing_folder_is_refused(name):
    with pytest.raises(CourseError, match="no such folder"):
        locate(name)


@pytest.mark.parametrize("load", [load_base, lambda config: load_tokenizer(config.model)])
def test_a_hub_id_without_a_network_is_refused_with_a_way_out(load, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CourseError, match="network") as caught:
        load(FinetuneConfig(model="nobody/no-such-model"))
    assert "embedded" in caught.value.do


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path):
    tokenizer = load_tokenizer("embedded")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CourseError, match="chat template"):
        load_tokenizer(str(tmp_path))


def test_a_local_folder_in_the_hubs_format_loads_like_the_embedded_model(tmp_path):
    config = FinetuneConfig(method="lora")
    base = load_base(config)
    base.save_pretrained(tmp_path)
    load_tokenizer("embedded").save_pretrained(tmp_path)
    again = load_base(FinetuneConfig(method="lora", model=str(tmp_path)))
    assert load_tokenizer(str(tmp_path)).chat_template
    for a, b in zip(base.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unknown_target_module_is_refused_with_those_that_exist():
    config = FinetuneConfig(method="lora", target_modules=("c_attn",))
    with pytest.raises(CourseError, match="q_proj"):
        attach_adapter(load_base(config), config)


def test_a_rank_above_the_layers_width_warns_on_the_real_model_too():
    config = FinetuneConfig(method="lora", rank=512)
    with pytest.warns(UserWarning, match="cannot have a higher rank"):
        attach_adapter(load_base(config), config)


def test_our_four_bits_are_nf4_with_double_quantization_and_our_own_compute_dtype():
    chosen = quantization(FinetuneConfig(), torch.float16)
    assert chosen.bnb_4bit_quant_type == "nf4"
    assert chosen.bnb_4bit_use_double_quant
    assert chosen.bnb_4bit_compute_dtype == torch.float16


def test_a_full_fine_tune_on_a_t4_keeps_fp32_weights():
    assert weights_dtype(FinetuneConfig(method="full"), CARDS["T4"]) == "float32"
    assert weights_dtype(FinetuneConfig(method="lora"), CARDS["T4"]) == "float16"
    assert weights_dtype(FinetuneConfig(method="full"), CARDS["A100 40GB"]) == "bfloat16"


def test_the_embedded_model_is_in_the_hubs_format_and_small():
    folder = course_path("data/model")
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "llama"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12 * 2**20
    assert not list(folder.glob("*.bin"))


def test_the_libraries_are_as_loud_as_before_after_a_quiet_call_that_fails():
    before = logging.get_verbosity()
    logging.set_verbosity_info()

    @libraries_quiet()
    def fail():
        raise RuntimeError(logging.get_verbosity())

    try:
        with pytest.raises(RuntimeError, match=str(logging.ERROR)):
            fail()
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before)


def test_the_linear_modules_are_those_that_peft_adapts_as_all_linear():
    config = FinetuneConfig(method="lora")
    names = set(linear_modules(load_base(config)))
    adapted = attach_adapter(load_base(config), config).named_parameters()
    assert names == {name.split(".")[-4] for name, _ in adapted if "lora_A" in name}
