"""The card of a tuned model, and the commands that take it to other programs."""

import pytest
from huggingface_hub import ModelCard

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.model_card import export_commands, write_model_card
from ftcourse.train import finetune

SHORT = {"rank": 4, "batch_size": 4, "max_steps": 10, "max_length": 128, "learning_rate": 1e-2}
SCORES = {"keeps all four rules": Score(8, 10)}


def config_of(method):
    return FinetuneConfig(method=method, dtype="float32", **SHORT)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The folder of a run that made an adapter."""
    folder = tmp_path_factory.mktemp("runs") / "lora"
    finetune(config_of("lora"), load_dialogues("train")[:16], folder)
    return folder


def test_a_card_holds_data_figures_and_config_and_the_hub_can_read_it(adapter):
    config = config_of("lora")
    path = write_model_card(adapter, config, "16 letters.", SCORES, "apache-2.0")
    card = ModelCard.load(path)
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "peft")
    for words in ("A LoRA adapter of `embedded`", "16 letters.", "must not be used", '"rank": 4'):
        assert words in card.text
    assert "| keeps all four rules | 80% | 49% to 94% | 10 |" in card.text
    assert "another seed may lie outside" in card.text
    write_model_card(adapter, config, "17 letters.", SCORES, notes="Loss 0.7.")  # ours is replaced
    said = path.read_text(encoding="utf-8")
    assert "17 letters." in said
    assert said.index("| 10 |") < said.index("\nLoss 0.7.\n\n## What it must not")
    loaded = finetune(config, load_dialogues("train")[:16], adapter)
    assert len(loaded.history) == 10  # the run is still whole


def test_a_card_of_somebody_else_is_kept(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    card = tmp_path / "README.md"
    card.write_text("# Mine", encoding="utf-8")
    with pytest.raises(CourseError, match="is kept"):
        write_model_card(tmp_path, config_of("lora"), "16 letters.", SCORES)
    assert card.read_text(encoding="utf-8") == "# Mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": ""},
        {"data": ["letters"]},
        {"scores": {}},
        {"scores": {"right": 0.8}},
        {"folder": "."},
    ],
    ids=str,
)
def test_a_card_without_what_it_must_hold_is_refused(wrong, adapter):
    whole = {"folder": adapter, "config": config_of("lora"), "data": "16 letters."}
    with pytest.raises(CourseError):
        write_model_card(**whole | {"scores": SCORES} | wrong)


def test_the_commands_name_the_folder_and_a_rank_that_vllm_accepts(adapter, tmp_path):
    found = export_commands(adapter)
    assert f"--max-lora-rank 8 --lora-modules lora={adapter}" in found
    assert "convert_lora_to_gguf.py" in found
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "config.json").write_text("{}", encoding="utf-8")
    assert "vllm serve '" in export_commands(tmp_path / "my model")
    with pytest.raises(CourseError, match="has a folder"):
        export_commands(tmp_path)
