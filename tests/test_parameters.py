"""Weights, gradients and states by arithmetic, against the tensors of torch, bitsandbytes, peft."""

from collections import Counter

import pytest
import torch
from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit
from published import SMALL, UNUSUAL

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS, Card
from ftcourse.live import plain
from ftcourse.memory import Step
from ftcourse.memory.parameters import gradient_rows, optimizer_rows, weight_rows, weights_of
from ftcourse.models import attach_adapter
from ftcourse.shape import ModelShape, parameter_count
from ftcourse.simulate.fakes import build_optimizer

T4, CPU = CARDS["T4"], Card("CPU", 2**40)
DOWN = "model.layers.*.mlp.down_proj.weight"
OPTIMIZERS = ["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_32bit"]
OPTIMIZERS += ["paged_adamw_8bit", "adafactor", "sgd"]


def step_of(name, card=T4, **run):
    shape = ModelShape.from_config(SMALL[name]) if name in SMALL else ModelShape.named(name)
    return Step(FinetuneConfig(**run), shape, card)


def rows_of(name, **run):
    """Return shape and format of each tensor that stores a shape's down_proj, by its last name."""
    rows = [row for row in weight_rows(step_of(name, **run)) if row.name.startswith(DOWN)]
    return {row.name.removeprefix(DOWN): (row.shape, row.dtype) for row in rows}


def facts(tensor):
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize(
    ("model", "size"), [("Llama-3.2-1B", (64, 96)), ("qwen2.5-0.5b", (896, 4864))]
)
def test_four_bit_weights_are_stored_in_the_tensors_of_bitsandbytes(model, size, double_quant):
    weight = torch.randn(size)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=double_quant)
    theirs = {"": packed} | {f".{n}": t for n, t in vars(state).items() if torch.is_tensor(t)}
    if double_quant:
        inner = vars(state.state2).items()
        theirs |= {f".state2.{n}": t for n, t in inner if torch.is_tensor(t)}
    ours = rows_of(model, double_quant=double_quant)
    assert ours == {name: facts(tensor) for name, tensor in theirs.items()}


def test_eight_bit_weights_are_stored_in_the_tensors_of_bitsandbytes():
    codes, scales, _ = int8_vectorwise_quant(torch.randn(896, 4864))
    assert rows_of("qwen2.5-0.5b", bits=8) == {"": facts(codes), ".SCB": facts(scales)}


def test_double_quantization_saves_0_373_bits_a_weight_and_not_half_a_bit():
    bits = {}
    for double in (True, False):
        step = step_of("llama-3.1-8b", double_quant=double)
        rows = [row for row in weight_rows(step) if row.name.startswith(DOWN)]
        bits[double] = 8 * sum(row.bytes for row in rows) / (4096 * 14336)
    assert bits[False] == pytest.approx(4.5, abs=1e-4)
    assert bits[False] - bits[True] == pytest.approx(0.373, abs=5e-4)


@pytest.mark.parametrize("name", [*UNUSUAL, "Llama-3.2-1B", "Phi-3-mini"])
@pytest.mark.parametrize("modules", ["all-linear", "second"])
def test_the_adapter_is_the_one_that_peft_attaches(name, modules, real_model):
    values = (SMALL | UNUSUAL)[name]
    shape = ModelShape.from_config(values)
    modules = list(shape.linears)[1] if modules == "second" else modules
    config = FinetuneConfig(method="lora", rank=4, target_modules=modules, attention="eager")
    model = attach_adapter(real_model(values, "cpu"), config)
    theirs = Counter((plain(n), *facts(p)) for n, p in model.named_parameters() if p.requires_grad)
    ours = [w for w in weights_of(Step(config, shape, CPU)) if w.trained]
    assert {(w.name, w.shape, w.dtype): w.count for w in ours} == theirs


def test_the_adapter_has_rank_times_inputs_and_outputs():
    step = step_of("llama-3.1-8b", rank=8, target_modules=("q_proj", "v_proj"))
    numbers = sum(w.numbers * w.count for w in weights_of(step) if w.trained)
    assert numbers == 32 * 8 * (4096 + 4096 + 4096 + 1024)


def test_a_full_fine_tune_trains_every_parameter():
    weights = weights_of(step_of("qwen2.5-0.5b", method="full"))
    assert all(w.trained for w in weights)
    numbers = sum(w.numbers * w.count for w in weights)
    assert numbers == parameter_count(ModelShape.named("qwen2.5-0.5b"))


@pytest.fixture(params=["full", "lora"])
def trained_model(request, real_model):
    """Return a small model in bfloat16 after its backward pass, and a function from run to step."""
    values = SMALL["Llama-3.2-1B"] | {"hidden_size": 128, "intermediate_size": 384}
    run = {"method": request.param, "dtype": "bfloat16"}
    model = real_model(values, "cpu").bfloat16()
    if request.param == "lora":
        model = attach_adapter(model, FinetuneConfig(**run))
    ids = torch.randint(512, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    shape = ModelShape.from_config(values)
    return model, lambda **more: Step(FinetuneConfig(**run, **more), shape, CPU)


def as_counter(rows):
    return Counter({(row.name, row.shape, row.dtype): row.count for row in rows})


def test_gradients_have_name_shape_and_format_of_the_real_ones(trained_model):
    model, step = trained_model
    named = model.named_parameters()
    theirs = Counter((plain(n), *facts(p.grad)) for n, p in named if p.grad is not None)
    assert as_counter(gradient_rows(step())) == theirs


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_states_are_those_of_the_real_optimizer_after_a_step(name, trained_model):
    model, step = trained_model
    optimizer = build_optimizer(model, step(optimizer=name).config, "cpu")
    optimizer.step()
    theirs = Counter(
        (f"{plain(path)}.{key}", *facts(value))
        for path, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if torch.is_tensor(value) and "qmap" not in key  # one pair of tables for all
    )
    ours = as_counter(optimizer_rows(step(optimizer=name)))
    tables = ours.pop(("optimizer", (256,), "float32"), 0)
    assert ours == theirs
    assert tables == (2 if "8bit" in name else 0)


def test_paged_states_are_outside_of_pytorchs_memory_on_a_gpu():
    run = {"method": "full", "optimizer": "paged_adamw_32bit"}
    on_gpu, on_cpu = (
        sum(row.bytes * row.count for row in optimizer_rows(step_of("llama-3.1-8b", card, **run)))
        for card in (CARDS["A100 80GB"], CPU)
    )
    norms = 65 * 4096  # too small to be paged
    assert on_gpu == 8 * norms
    assert on_cpu == 8 * parameter_count(ModelShape.named("llama-3.1-8b"))
