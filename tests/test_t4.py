"""A Tesla T4 and small cards, imitated on this machine, which needs no GPU for it.

Imitated are a card's name, memory and compute capability, and that it is there: a real run on this
CPU believes that it is on a T4. Autocast in float16 and the GradScaler are torch's own, as on the
card; only accelerate, which gives no scaler to a CPU, is handed one. Not imitated is CUDA: no test
here says how fast a T4 is, or how its kernels round.
"""

import ast
import re
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import torch
from transformers import Trainer, TrainerCallback

from ftcourse.config import FinetuneConfig, check_training
from ftcourse.data import load_dialogues
from ftcourse.doctor import examine
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card, choose_dtype, detect
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import cheapest_change, judge_fit
from ftcourse.models import base
from ftcourse.train import finetune
from ftcourse.train.build import training_arguments

T4 = CARDS["T4"]
SMALL_CARDS = {
    "T4": T4,
    "4 GiB": Card("GTX 1650", 4 * GIB, (7, 5)),
    "8 GiB": Card("RTX 2070", 8 * GIB, (7, 5)),
    "laptop": Card("RTX 3060 Laptop", 6 * GIB, (8, 6)),
}
RUN = {"max_steps": 4, "batch_size": 2, "max_length": 96, "learning_rate": 3e-4}
each_card = pytest.mark.parametrize("card", SMALL_CARDS.values(), ids=SMALL_CARDS)
each_method = pytest.mark.parametrize("method", ["full", "lora", "qlora"])


@dataclass(frozen=True, repr=False)
class OnCpu(Card):
    """A card whose runs take place on the CPU."""

    @property
    def device(self):
        return "cpu"


IMITATED = OnCpu(T4.name, T4.memory, T4.capability, T4.context)


@pytest.fixture
def imitate(monkeypatch):
    """Return a function that makes a card the one of this machine, for every module of ours."""

    def be(card):
        ours = [module for name, module in sys.modules.items() if name.startswith("ftcourse.")]
        for module in ours:
            if getattr(module, "detect", None) is detect:
                monkeypatch.setattr(module, "detect", lambda: card)

    return be


@pytest.fixture
def scaler(monkeypatch):
    """Give each Trainer the scaler that accelerate gives it on a GPU; return the dict of it."""
    held = {"scale": 2.0**16}  # torch's own beginning
    real = Trainer.create_accelerator_and_postprocess

    def create(trainer):
        real(trainer)
        if trainer.args.fp16:
            assert trainer.accelerator.mixed_precision == "fp16"
            trainer.accelerator.native_amp = True
            made = torch.amp.GradScaler("cpu", init_scale=held["scale"])
            trainer.accelerator.scaler = held["scaler"] = made

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)
    return held


class Watch(TrainerCallback):
    """Notes the formats of a run, and which of its steps the scaler skipped."""

    def __init__(self):
        self.formats, self.skipped, self.adapters, self.states = set(), [], set(), set()
        self.open = ExitStack()

    def on_train_begin(self, args, state, control, model, optimizer, **_):
        self.model, self.optimizer = model, optimizer
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.before = [p.detach().clone() for p in self.trained]
        inside = model.get_input_embeddings()  # accelerate wraps what is around it
        self.open.callback(inside.register_forward_pre_hook(self.note).remove)

    def note(self, *_):
        self.autocast = (
            torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        )

    def on_step_end(self, args, state, control, **_):
        now = [p.detach().clone() for p in self.trained]
        self.skipped.append(all(map(torch.equal, now, self.before)))
        self.before = now

    def on_train_end(self, args, state, control, **_):
        self.open.close()
        self.adapters = {p.dtype for p in self.trained}
        tensors = [*self.model.parameters(), *self.model.buffers()]
        states = [v for state in self.optimizer.state.values() for v in state.values()]
        self.states = {v.dtype for v in states if torch.is_tensor(v)}
        self.formats = {t.dtype for t in tensors} | self.states


@pytest.fixture(scope="module")
def dialogues():
    return load_dialogues("train")[:32]


@pytest.mark.slow
@each_method
def test_a_run_on_a_t4_is_in_float16_with_a_scaler_and_what_is_trained_in_float32(
    method, imitate, scaler, dialogues
):
    imitate(IMITATED)
    watch = Watch()
    result = finetune(FinetuneConfig(method=method, **RUN), dialogues, callbacks=[watch])
    assert watch.autocast == torch.float16
    assert watch.adapters == watch.states == {torch.float32}
    assert torch.bfloat16 not in watch.formats
    assert method == "full" or torch.float16 in watch.formats  # the frozen weights
    assert scaler["scaler"].get_scale() >= 2.0**12
    assert watch.skipped[-1] is False
    assert result.history[-1]["loss"] < result.history[0]["loss"] + 1


@pytest.mark.slow
def test_steps_whose_gradient_overflows_are_skipped_and_the_run_goes_on(imitate, scaler, dialogues):
    imitate(IMITATED)
    scaler["scale"] = 2.0**28  # so large that the first gradients are infinite
    watch = Watch()
    result = finetune(
        FinetuneConfig(method="lora", **RUN | {"max_steps": 24}), dialogues, callbacks=[watch]
    )
    skips = watch.skipped.count(True)
    assert watch.skipped[0]
    assert watch.skipped == [True] * skips + [False] * (24 - skips)
    assert scaler["scaler"].get_scale() == 2.0 ** (28 - skips)
    assert [entry["step"] for entry in result.history] == list(range(1, 25))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0**16, 2.0**20])
def test_the_bytes_of_a_step_are_those_of_one_that_was_not_skipped(scale, imitate, scaler):
    imitate(IMITATED)
    scaler["scale"] = scale
    config = FinetuneConfig(method="lora", **RUN)
    measured = measure_memory(config)
    assert measured.optimizer == predict_memory(config, IMITATED).optimizer


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_adapter_in_16_bits_is_refused_where_its_gradients_would_be_scaled(
    dtype, method, scaled, imitate, dialogues, monkeypatch
):
    config = FinetuneConfig(method=method, adapter_dtype=dtype, **RUN)
    imitate(IMITATED if scaled else Card("CPU", 16 * GIB))
    monkeypatch.setattr(base.AutoModelForCausalLM, "from_pretrained", explode)
    words = "trains an adapter in float32" if scaled else "was to be loaded"
    with pytest.raises((CourseError, Loaded), match=words):
        finetune(config, dialogues)


class Loaded(BaseException):
    """Stands for the moment in which weights are read."""


def explode(*_, **__):
    raise Loaded("a model was to be loaded")


@each_method
def test_the_trainers_arguments_for_a_t4_are_fp16_and_never_bf16(method, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # as it says there
    arguments = training_arguments(FinetuneConfig(method=method), tmp_path, T4)
    assert (arguments.fp16, arguments.bf16) == (True, False)
    assert (arguments.fp16_full_eval, arguments.bf16_full_eval) == (False, False)
    for name, card in SMALL_CARDS.items():
        card = OnCpu(card.name, card.memory, card.capability)  # else bf16 asks for a real GPU
        arguments = training_arguments(FinetuneConfig(method=method), tmp_path, card)
        assert arguments.bf16 is (name == "laptop")
        assert arguments.fp16 is (name != "laptop")


@each_method
def test_a_t4_gets_sdpa_its_own_format_and_a_matching_4_bit_arithmetic(
    method, imitate, monkeypatch
):
    asked = {}

    def load(place, **options):
        asked.update(options)
        raise Loaded("a model was to be loaded")

    monkeypatch.setattr(base, "_rehearse", lambda *_: None)
    monkeypatch.setattr(base.AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(Loaded):
        base.load_base(FinetuneConfig(method=method), T4)
    assert asked["attn_implementation"] == "sdpa"
    assert asked["device_map"] == {"": "cuda"}
    assert asked["dtype"] == (torch.float32 if method == "full" else torch.float16)
    if method == "qlora":
        assert asked["quantization_config"].bnb_4bit_compute_dtype == torch.float16


def test_bfloat16_that_a_card_only_emulates_is_said_by_the_doctor_with_what_avoids_it():
    (trap,) = [trap for trap in examine(T4).traps if "bfloat16" in trap.what]
    assert "emulated and slow" in trap.what
    assert 'dtype="auto"' in trap.fix
    assert FinetuneConfig().dtype_on(T4) == "float16"


@pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-3.2-1b", "qwen2.5-0.5b"])
@each_method
@each_card
def test_what_does_not_fit_is_refused_before_a_weight_is_read_with_a_change_that_fits(
    card, method, model, imitate, dialogues, monkeypatch
):
    imitate(card)
    monkeypatch.setattr(base.AutoModelForCausalLM, "from_pretrained", explode)
    monkeypatch.setattr(base, "check_weights", explode)
    config = FinetuneConfig(model=model, method=method, batch_size=8, max_length=1024)
    answer = judge_fit(predict_memory(config, card), card).answer
    if answer != "no":
        assert (model, method) != ("llama-3.1-8b", "full")
        return
    with pytest.raises(CourseError) as caught:
        measure_memory(config)
    changed = cheapest_change(config, card)
    if changed == config:
        assert caught.value.do == "Use a smaller model or a larger card."
    else:
        assert judge_fit(predict_memory(changed, card), card).answer == "yes"
        for name, value in vars(changed).items():
            if value != getattr(config, name):
                assert f"{name}={value!r}" in caught.value.do


# What fits with the margin, by the arithmetic; the refusals are those of the parametrized test.
PRESETS = {
    "T4": {"llama-3.1-8b": "qlora", "llama-3.2-1b": "lora", "qwen2.5-0.5b": "full"},
    "4 GiB": {"llama-3.1-8b": None, "llama-3.2-1b": "qlora", "qwen2.5-0.5b": "lora"},
    "8 GiB": {"llama-3.1-8b": None, "llama-3.2-1b": "lora", "qwen2.5-0.5b": "lora"},
    # With bfloat16, a full fine-tune has half the bytes that it has with float16 and its scaler.
    "laptop": {"llama-3.1-8b": None, "llama-3.2-1b": "lora", "qwen2.5-0.5b": "full"},
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_method_that_trains_most_and_still_fits_a_small_card(name):
    card, found = SMALL_CARDS[name], {}
    for model in PRESETS[name]:
        runs = {
            method: FinetuneConfig(model=model, method=method, batch_size=1, max_length=512)
            for method in ("full", "lora", "qlora")
        }
        fits = [
            m for m, r in runs.items() if judge_fit(predict_memory(r, card), card).answer == "yes"
        ]
        found[model] = fits[0] if fits else None
    assert found == PRESETS[name]


@each_card
def test_the_embedded_model_of_the_lessons_fits_every_small_card_with_every_method(card):
    for method in ("full", "lora", "qlora"):
        config = FinetuneConfig(method=method)
        assert judge_fit(predict_memory(config, card), card).answer == "yes"
        assert config.dtype_on(card) == choose_dtype(card).dtype


def configs_of(lesson):
    """Yield the runs that a lesson writes out, as far as they are literals."""
    for cell in nbformat.read(lesson, 4).cells:
        if cell.cell_type == "code":
            source = re.sub(r"(?m)^( *)[%!].*", r"\1pass", cell.source)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "FinetuneConfig":
                    with suppress(ValueError):  # a variable among them
                        named = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
                        yield FinetuneConfig(*map(ast.literal_eval, node.args), **named)


LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_what_a_lesson_trains_is_float16_on_a_t4_and_fits_it(lesson):
    for config in configs_of(lesson):
        if config.model == "embedded":
            assert config.dtype_on(T4) in ("float16", "float32"), config
            check_training(config, T4)
            assert judge_fit(predict_memory(config, T4), T4).answer == "yes", config


def test_lessons_write_out_runs_of_the_small_model_and_of_larger_ones():
    models = [config.model for lesson in LESSONS for config in configs_of(lesson)]
    assert models.count("embedded") >= 5
    assert len(set(models)) > 2
