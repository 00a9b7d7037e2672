import errno
import json
import os
import re
import subprocess
import sys
import types
from dataclasses import fields
from pathlib import Path

import pytest

from ftcourse.cli import _make_parser, _read_plan, main
from ftcourse.config import FinetuneConfig
from ftcourse.config_file import write_config
from ftcourse.hardware import CARDS, detect
from ftcourse.memory.fit import largest


def read(*arguments):
    return _read_plan(_make_parser().parse_args(["predict", *arguments])).config


def test_without_options_the_config_is_the_default_one():
    assert read() == FinetuneConfig()


def test_each_field_of_the_config_has_an_option_with_its_own_words(capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in fields(FinetuneConfig):
        assert "--" + field.name.replace("_", "-") in text
    assert "Inner width of the adapter's two matrices (r in the LoRA paper" in text
    assert "{full,lora,qlora}" in text


def test_options_arrive_with_the_types_of_their_fields():
    config = read("--rank", "8", "--alpha", "4.5", "--bits", "8", "--no-double-quant", "--upcast")
    assert config == FinetuneConfig(rank=8, alpha=4.5, bits=8, double_quant=False, upcast=True)


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("all-linear", "all-linear"),
        ("q_proj", "q_proj"),
        ("q_proj,v_proj", ("q_proj", "v_proj")),
    ],
)
def test_target_modules_are_one_word_or_several(text, modules):
    assert read("--target-modules", text).target_modules == modules


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "--bits", "3"], ["bits is one of 4, 8.", "got: bits=3"]),
        (["predict", "--rank", "0"], ["rank", "got: rank=0"]),
        (["predict", "--card", "T5"], ["got: 'T5'", "T4, RTX 3060"]),
        (["predict", "--model", "no such model"], ["got: 'no such model'", "'embedded'"]),
        (["finetune", "none.jsonl", "--output-dir", "out"], ["none.jsonl: no such file"]),
        (["lab", "--port", "99999", "x"], ["from 1 to 65535"]),
    ],
)
def test_bad_input_prints_the_three_parts_and_no_traceback(
    arguments, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert "\n  got: " in text
    assert "\n  do:  " in text
    for word in words:
        assert word in text
    assert not (tmp_path / "out").exists()


def test_predict_prints_the_breakdown_and_whether_it_fits_a_card(capsys):
    arguments = ["predict", "--model", "llama-3.1-8b", "--max-length", "1024", "--card"]
    assert main([*arguments, "A100 40GB"]) == 0
    text = capsys.readouterr().out
    for part in ("weights", "gradients", "optimizer", "activations", "overhead", "GiB"):
        assert part in text
    assert "\nFits the A100 40GB with " in text
    assert " GiB to spare: " in text


@pytest.mark.parametrize(
    ("batch", "fits", "says"),
    [
        ("4", "yes", "Fits the Tesla T4 with "),
        ("8", "narrowly", "Fits the Tesla T4 narrowly and may fail: "),
        ("32", "no", "Does not fit the Tesla T4: "),
    ],
)
def test_predict_gives_one_of_three_answers_and_a_change_unless_the_run_surely_fits(
    batch, fits, says, capsys
):
    arguments = ["predict", "--model", "llama-3.1-8b", "--card", "T4", "--batch-size", batch]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert f"\n{says}" in text
    assert (re.search(r"\nTry .*loss='chunked': predicted to need ", text) is None) == (
        fits == "yes"
    )
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] == fits


def test_predict_without_a_card_asks_about_this_machine(capsys):
    assert main(["predict", "--model", "smollm2-135m"]) == 0
    assert f"\nFits the {detect().name} with " in capsys.readouterr().out


def test_a_warning_is_shown_once_as_a_sentence_and_without_line_numbers(capsys):
    main(["predict", "--model", "smollm2-135m", "--rank", "4096", "--card", "T4"])
    text = capsys.readouterr().err
    assert text.startswith("note: rank 4096 is above the width of ")
    assert text.count("\n") == 1


def test_predict_can_simulate_instead(capsys):
    arguments = ["predict", "--model", "smollm2-135m", "--max-length", "128", "--card", "T4"]
    assert main([*arguments, "--simulate"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("simulated on Tesla T4")
    assert re.search(r"\nsimulated: .* %.*, against the arithmetic\nFits the Tesla T4 with ", text)


def test_a_family_that_arithmetic_does_not_know_can_be_simulated(capsys, write_shape):
    model = write_shape(model_type="starcoder2")
    arguments = ["predict", "--model", model, "--max-length", "64", "--card", "T4"]
    assert main(arguments) == 2
    assert "simulate_memory" in capsys.readouterr().err
    assert main([*arguments, "--simulate"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("simulated on Tesla T4")
    assert "Fits the Tesla T4" in text.splitlines()[-1]


def test_what_cannot_be_simulated_is_refused(capsys, write_shape):
    model = write_shape(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)
    arguments = ["--model", model, "--dtype", "float32", "--card", "A100 80GB"]
    assert main(["predict", *arguments, "--simulate"]) == 2
    assert "Fake tensors" in capsys.readouterr().err


def test_predict_as_json_gives_bytes_that_add_up(capsys):
    assert main(["predict", "--model", "llama-3.1-8b", "--json", "--card", "T4"]) == 0
    found = json.loads(capsys.readouterr().out)
    parts = ("weights", "gradients", "optimizer", "activations", "overhead")
    assert sum(found[part] for part in parts) == found["allocated"] > 2**30
    assert found["card"] == "Tesla T4"


def test_predict_says_what_the_panel_says(capsys):
    from ftcourse.widgets.memory import memory_panel

    panel = memory_panel(model="qwen2.5-7b", card="T4")
    panel.controls["max_length"].value = 256
    arguments = ["predict", "--model", "qwen2.5-7b", "--card", "T4", "--max-length", "256"]
    assert main(arguments) == 0
    *_, verdict, record = capsys.readouterr().out.splitlines()
    assert verdict == panel.text
    assert f"<p>{record}</p>" in panel.children[-1].value


def test_predict_answers_how_much_of_a_field_fits(capsys):
    config = FinetuneConfig(model="llama-3.1-8b")
    longest = largest(config, "max_length", CARDS["T4"].memory, CARDS["T4"])
    arguments = ["predict", "--model", "llama-3.1-8b", "--card", "T4", "--largest", "max-length"]
    assert main(arguments) == 0
    line = f"The largest max_length that fits: {longest:,}."
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest"] == {"max_length": longest}
    assert main(["predict", "--largest", "seed"]) == 2
    assert "max_length, batch_size or, for an adapter, rank" in capsys.readouterr().err


def test_predict_as_json_gives_the_nearest_record_with_what_differs(capsys):
    main(["predict", "--model", "qwen2.5-7b", "--card", "T4", "--json"])
    near = json.loads(capsys.readouterr().out)["nearest"]
    assert (near["record"]["by"], near["record"]["card"]) == ("fitcheck", "Tesla T4")
    assert near["differs"]["max_length"] == ["1024", "512"]
    main(["predict", "--model", "qwen2.5-7b", "--method", "full", "--card", "T4", "--json"])
    assert json.loads(capsys.readouterr().out)["nearest"] is None


@pytest.fixture
def imitated_training(monkeypatch, tmp_path):
    """Replace the training itself; yields the file of records and what finetune was called with."""
    calls = []

    def finetune(config, data, output_dir, **judges):
        calls.append((config, data, output_dir, judges))
        history = [{"step": 1, "loss": 2.5}]
        return types.SimpleNamespace(history=history, output_dir=Path(output_dir), seconds=1.0)

    monkeypatch.setattr("ftcourse.train.finetune", finetune)
    records = tmp_path / "records.jsonl"
    records.write_text('{"prompt": "Hello?", "completion": "Hello!"}\n', encoding="utf-8")
    return records, calls


def test_finetune_hands_config_records_and_folder_over(imitated_training):
    records, calls = imitated_training
    assert main(["finetune", str(records), "--output-dir", "out", "--rank", "4"]) == 0
    data = [{"prompt": "Hello?", "completion": "Hello!"}]
    nobody = {"validation": None, "patience": None}
    assert calls == [(FinetuneConfig(rank=4), data, Path("out"), nobody)]


def test_a_config_file_says_the_run_and_the_command_line_comes_first(imitated_training, tmp_path):
    records, calls = imitated_training
    paths = {"data": records, "validation": records, "output_dir": tmp_path / "run"}
    file = write_config(tmp_path / "run.toml", FinetuneConfig(rank=4, seed=7), **paths, patience=3)
    assert main(["finetune", "--config", str(file)]) == 0
    other = ["--rank", "5", "--output-dir", "other", "--patience", "1"]
    assert main(["finetune", str(records), "--config", str(file), *other]) == 0
    (first, data, folder, judges), (second, _, elsewhere, sooner) = calls
    assert (first, folder) == (FinetuneConfig(rank=4, seed=7), tmp_path / "run")
    assert judges == {"validation": data, "patience": 3}
    assert (second, elsewhere) == (FinetuneConfig(rank=5, seed=7), Path("other"))
    assert sooner["patience"] == 1


def test_predict_reads_the_same_config_file(tmp_path):
    file = write_config(tmp_path / "run.toml", FinetuneConfig(rank=4, seed=7))
    assert read("--config", str(file), "--seed", "8") == FinetuneConfig(rank=4, seed=8)


@pytest.mark.parametrize("command", ["finetune", "finetune data.jsonl", "finetune --output-dir a"])
def test_a_run_without_data_or_folder_is_refused(command, capsys):
    assert main(command.split()) == 2
    assert "A run has its data and its folder." in capsys.readouterr().err


def test_the_package_is_a_program(tmp_path):
    command = [sys.executable, "-m", "ftcourse", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ftcourse ")


def test_finetune_as_json_gives_config_and_history(imitated_training, capsys):
    main(["finetune", str(imitated_training[0]), "--output-dir", "out", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["history"] == [{"step": 1, "loss": 2.5}]
    assert found["config"]["method"] == "qlora"
    assert (found["output_dir"], found["seconds"]) == ("out", 1.0)


def test_help_and_lessons_open_without_waiting_for_torch():
    code = "import sys, ftcourse.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_error_of_the_operating_system_is_shown_in_three_parts(
    imitated_training, monkeypatch, capsys
):
    def refuse(*_, **__):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "out")

    monkeypatch.setattr("ftcourse.train.finetune", refuse)
    assert main(["finetune", str(imitated_training[0]), "--output-dir", "out"]) == 2
    assert "File exists: 'out'\n  do:  Check the path" in capsys.readouterr().err


def test_a_stop_by_the_keyboard_prints_no_traceback(imitated_training, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ftcourse.train.finetune", stop)
    assert main(["finetune", str(imitated_training[0]), "--output-dir", "out"]) == 130
    assert capsys.readouterr().err == "stopped\n"
