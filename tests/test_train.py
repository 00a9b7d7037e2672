import math

import pytest
import torch
from cases import some_of
from transformers import TrainerCallback

from ftcourse.chat import ask
from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.evaluate import held_out_loss
from ftcourse.models import load_base
from ftcourse.train import FinetuneResult, finetune
from ftcourse.train.checkpoints import last_checkpoint
from ftcourse.train.run import RUN_FILE, read_run, run_name

SHORT = {"max_steps": 6, "batch_size": 4, "max_length": 128, "learning_rate": 3e-3}
SHORTEST = SHORT | {"max_steps": 2}  # where the question is not what was learned


@pytest.fixture(scope="module")
def dialogues():
    return load_dialogues("train")[:64]


class Killed(Exception):
    """Stands for anything that ends a run from outside."""


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Killed


LOWERING = [
    {"method": "full", "learning_rate": 1e-3},
    {"method": "lora", "loss": "chunked"},
    {"method": "qlora", "upcast": True, "optimizer": "adamw_8bit"},
    {"method": "lora"},
    {"method": "lora", "dtype": "bfloat16"},
    {"method": "qlora"},
    {"method": "qlora", "bits": 8},
]


@pytest.mark.parametrize(
    "run",
    some_of(LOWERING, LOWERING[:3]),
    ids=lambda run: " ".join(map(str, run.values())),
)
def test_every_method_lowers_the_loss_on_dialogues_it_has_not_seen(run, dialogues, tmp_path):
    config = FinetuneConfig(**{**SHORT, "max_steps": 12, **run})
    result = finetune(config, dialogues, tmp_path)
    held_out = load_dialogues("validation")[:16]
    before = held_out_loss(load_base(config), result.tokenizer, held_out)
    assert held_out_loss(result.model, result.tokenizer, held_out) < before
    assert [entry["step"] for entry in result.history] == list(range(1, 13))


@pytest.mark.parametrize(
    "method",
    ["qlora", *some_of(["full", "lora"], ["full"])],
)
def test_a_finished_run_is_saved_as_safetensors_and_loaded_by_the_same_call(
    method, dialogues, tmp_path
):
    config = FinetuneConfig(**{**SHORT, "method": method})
    first = finetune(config, dialogues, tmp_path)
    weights = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert weights in {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pt"))
    again = finetune(config, dialogues, tmp_path, callbacks=[KillAt(1)])  # no step is trained
    assert again.history == first.history
    question = "My drone drifts. What can I do?"
    assert ask(again.model, again.tokenizer, question) == ask(
        first.model, first.tokenizer, question
    )


@pytest.mark.parametrize("method", some_of(["full", "lora", "qlora"], ["qlora"]))
def test_a_killed_run_resumes_at_its_last_complete_checkpoint_and_ends_as_if_never_killed(
    method, dialogues, tmp_path
):
    config = FinetuneConfig(**{**SHORT, "method": method, "max_steps": 12})
    whole = finetune(config, dialogues, tmp_path / "whole")
    with pytest.raises(Killed):
        finetune(config, dialogues, tmp_path / "killed", callbacks=[KillAt(11)])
    (tmp_path / "killed/checkpoints/checkpoint-11").mkdir()  # as after a power cut
    with pytest.warns(UserWarning, match="checkpoint-11 is passed over: it has no whole.json"):
        last = last_checkpoint(tmp_path / "killed", run_name(read_run(tmp_path / "killed")))
    assert last.name == "checkpoint-10"
    with pytest.warns(UserWarning, match="passed over"):
        resumed = finetune(config, dialogues, tmp_path / "killed")
    assert [entry["step"] for entry in resumed.history] == list(range(1, 13))
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_a_folder_with_another_run_is_refused_and_left_as_it_is(dialogues, tmp_path):
    config = FinetuneConfig(method="lora", **SHORTEST)
    finetune(config, dialogues, tmp_path)
    before = (tmp_path / RUN_FILE).read_text(encoding="utf-8")
    with pytest.raises(CourseError, match="rank was 16, now 8"):
        finetune(FinetuneConfig(method="lora", rank=8, **SHORTEST), dialogues, tmp_path)
    with pytest.raises(CourseError, match="other training data"):
        finetune(config, dialogues[:10], tmp_path)
    with pytest.raises(CourseError, match="resume=False"):
        finetune(config, dialogues, tmp_path, resume=False)
    assert (tmp_path / RUN_FILE).read_text(encoding="utf-8") == before


def test_a_file_where_the_folder_should_be_is_refused_and_left_as_it_is(dialogues, tmp_path):
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(CourseError, match="is a file"):
        finetune(FinetuneConfig(method="lora", **SHORT), dialogues, tmp_path / "run")
    assert (tmp_path / "run").read_text(encoding="utf-8") == "mine"


def test_weights_that_no_run_of_ours_wrote_are_not_overwritten(dialogues, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"precious")
    with pytest.raises(CourseError, match=r"holds adapter_model\.safetensors"):
        finetune(FinetuneConfig(method="lora", **SHORT), dialogues, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == b"precious"


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_checkpoint_does_not_block_its_folder(
    dialogues, tmp_path
):
    with pytest.raises(Killed):
        finetune(
            FinetuneConfig(method="lora", **SHORTEST), dialogues, tmp_path, callbacks=[KillAt(1)]
        )
    finetune(FinetuneConfig(method="lora", rank=4, **SHORTEST), dialogues, tmp_path)
    assert read_run(tmp_path)["config"]["rank"] == 4


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(dialogues):
    losses = [
        finetune(FinetuneConfig(method="lora", seed=seed, **SHORTEST), dialogues).history[-1][
            "loss"
        ]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_step_that_runs_out_of_memory_is_refused_with_the_breakdown(dialogues, monkeypatch):
    def explode(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("ftcourse.train.build.Trainer.training_step", explode)
    with pytest.raises(CourseError) as caught:
        finetune(FinetuneConfig(method="lora", **SHORT), dialogues)
    assert "activations" in caught.value.got


def test_float16_on_a_cpu_is_refused_with_what_works(dialogues):
    with pytest.raises(CourseError, match="needs a GPU"):
        finetune(FinetuneConfig(dtype="float16", **SHORT), dialogues)


def test_an_adapter_on_two_modules_trains_only_those(dialogues):
    config = FinetuneConfig(method="lora", target_modules=("q_proj", "v_proj"), **SHORTEST)
    model = finetune(config, dialogues).model
    trained = {n.split(".")[-4] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}


def test_the_base_of_a_qlora_run_is_stored_in_four_bits_and_its_adapter_in_fp32(dialogues):
    model = finetune(FinetuneConfig(**SHORTEST), dialogues).model
    dtypes = {n: p.dtype for n, p in model.named_parameters() if "layers.0.mlp.up_proj" in n}
    assert {dtype for name, dtype in dtypes.items() if "base_layer" in name} == {torch.uint8}
    assert {dtype for name, dtype in dtypes.items() if "lora" in name} == {torch.float32}


def test_the_report_names_method_parameters_steps_and_losses(tmp_path):
    config = FinetuneConfig(method="lora", **SHORT)
    history = [{"step": step, "loss": 6.0 / step} for step in range(1, 7)]
    result = FinetuneResult(config, None, None, history, tmp_path, 204_800, 2.4)
    expected = "lora: 204,800 parameters, 6 steps in 2 s, training loss 6.00 -> 1.00"
    assert repr(result) == expected


@pytest.mark.parametrize("hidden", [False, True])
def test_a_bar_shows_steps_and_loss_unless_it_is_hidden(hidden, dialogues, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", str(int(hidden)))
    finetune(FinetuneConfig(method="lora", **SHORTEST), dialogues)
    text = capsys.readouterr().err
    assert ("2/2" in text and "loss=" in text) is not hidden


@pytest.mark.slow
def test_accumulated_small_batches_train_like_one_large_batch(dialogues):
    large = FinetuneConfig(method="lora", **{**SHORT, "batch_size": 8})
    small = FinetuneConfig(
        method="lora", gradient_accumulation_steps=4, **{**SHORT, "batch_size": 2}
    )
    ends = [finetune(c, dialogues).history[-1]["loss"] for c in (large, small)]
    assert math.isclose(*ends, rel_tol=0.01)


@pytest.mark.slow
def test_a_data_set_of_the_datasets_library_is_the_same_run_as_a_list(dialogues, tmp_path):
    from datasets import Dataset

    records = [*dialogues[:24], *({"text": record["completion"]} for record in dialogues[24:32])]
    names = ("prompt", "completion", "reason", "step", "text")
    columns = {name: [record.get(name) for record in records] for name in names}
    config = FinetuneConfig(method="lora", **SHORTEST)
    ours = finetune(config, records, tmp_path / "list")
    theirs = finetune(config, Dataset.from_dict(columns), tmp_path / "dataset")
    assert ours.history == theirs.history
    assert read_run(tmp_path / "list")["data"] == read_run(tmp_path / "dataset")["data"]
    files = [tmp_path / name / "adapter_model.safetensors" for name in ("list", "dataset")]
    assert files[0].read_bytes() == files[1].read_bytes()
