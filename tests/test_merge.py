"""What becomes of an adapter: merged, swapped, and read by plain peft and transformers."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.models import load_adapters, load_base, load_finetuned, merge_adapter
from ftcourse.train import finetune

SHORT = {"rank": 4, "batch_size": 4, "max_steps": 10, "max_length": 128, "learning_rate": 1e-2}


def config_of(method, **changes):
    return FinetuneConfig(method=method, dtype="float32", **SHORT | changes)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Folders of four short runs: a LoRA adapter on plain and on 4-bit weights, another, a full."""
    folder, letters = tmp_path_factory.mktemp("runs"), load_dialogues("train")
    for name, method, first in (("lora", "lora", 0), ("qlora", "qlora", 0), ("other", "lora", 40)):
        finetune(config_of(method), letters[first : first + 16], folder / name)
    finetune(config_of("full", max_steps=1), letters[:4], folder / "full")
    return folder


def logits(model):
    """In training mode (nothing drops out), in which bitsandbytes multiplies in float32, too."""
    return model.train()(input_ids=torch.arange(4, 40)[None]).logits.detach()


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_merged_model_speaks_like_the_adapter_in_plain_transformers(method, adapters, tmp_path):
    """Not to the bit: W x + B A x is summed in another order than (W + B A) x."""
    place = merge_adapter(config_of(method), adapters / method, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(place)
    beside = logits(load_finetuned(config_of(method), adapters / method))
    torch.testing.assert_close(logits(plain), beside, atol=1e-4, rtol=1e-4)
    assert not hasattr(plain, "peft_config")
    found = json.loads((place / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in found
    assert found["dtype"] == "float32"
    messages = [{"role": "user", "content": "It drifts."}]
    assert AutoTokenizer.from_pretrained(place).apply_chat_template(messages)
    base = logits(load_base(config_of(method)))
    assert (logits(plain) - base).abs().max() > 0.1  # the adapter did change something


def test_merge_adapter_matches_peft(adapters, tmp_path):
    config = config_of("lora")
    place = merge_adapter(config, adapters / "lora", tmp_path / "merged")
    theirs = PeftModel.from_pretrained(load_base(config), adapters / "lora").merge_and_unload()
    ours = AutoModelForCausalLM.from_pretrained(place).state_dict()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours[name]), name


def test_the_adapter_of_a_run_is_read_by_plain_peft(adapters):
    base = AutoModelForCausalLM.from_pretrained(course_path("data/model"), dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, adapters / "lora")
    assert torch.equal(logits(theirs), logits(load_finetuned(config_of("lora"), adapters / "lora")))


def test_adapters_are_swapped_on_one_base(adapters):
    config = config_of("lora")
    folders = {"voice": adapters / "lora", "other": str(adapters / "other")}
    model = load_adapters(config, folders)
    for name in ("voice", "other", "voice"):
        model.set_adapter(name)
        assert torch.equal(logits(model), logits(load_finetuned(config, folders[name])))
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(load_base(config)))


@pytest.mark.parametrize(
    "folders", [{}, [], "voice", {"a.b": "x"}, {3: "x"}, {"voice": "no/such/folder"}], ids=str
)
def test_what_names_no_adapters_is_refused(folders):
    with pytest.raises(CourseError):
        load_adapters(config_of("lora"), folders)


def test_what_cannot_be_merged_is_refused_and_nothing_is_written(adapters, tmp_path):
    config = config_of("lora")
    with pytest.raises(CourseError, match="whole model"):
        merge_adapter(config, adapters / "full", tmp_path / "merged")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(CourseError, match="new or empty"):
        merge_adapter(config, adapters / "lora", tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]
