import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card
from ftcourse.measure import measure_memory
from ftcourse.memory import (
    PARTS,
    MemoryBreakdown,
    predict_memory,
    predict_step,
)
from ftcourse.memory.fit import cheapest_change, does_not_fit
from ftcourse.memory.parameters import (
    adapter_sizes,
    quantized_bytes,
    trained_sizes,
)
from ftcourse.memory.peak import cublas_workspaces, step_moments
from ftcourse.memory.step import Step
from ftcourse.shape import ModelShape, load_shape, parameter_count
from ftcourse.shape.hub import named_shapes

T4 = CARDS["T4"]


def write_shape(folder, **changes):
    """Write a config.json that is small, but has all that a real one has."""
    config = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "tie_word_embeddings": True,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


# --- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", named_shapes())
def test_the_parameter_count_is_that_of_the_real_model_class(name):
    from transformers import AutoConfig, AutoModelForCausalLM

    facts = {k: v for k, v in named_shapes()[name].items() if k != "hub_id"}
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert parameter_count(ModelShape.named(name)) == model.num_parameters()


def test_a_family_with_normalized_queries_is_counted_right(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = write_shape(tmp_path, model_type="qwen3", tie_word_embeddings=False, head_dim=32)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    assert parameter_count(load_shape(folder)) == model.num_parameters()


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("size", [(128, 384), (896, 4864)])
def test_four_bit_weights_take_the_bytes_that_bitsandbytes_takes(size, double_quant):
    from bitsandbytes.functional import quantize_4bit

    weight = torch.randn(size)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=double_quant)
    inner = [state.state2, state] if state.nested else [state]
    tensors = [packed] + [t for s in inner for t in vars(s).values() if torch.is_tensor(t)]
    config = FinetuneConfig(double_quant=double_quant)
    real = sum(t.nbytes for t in tensors)
    assert quantized_bytes(weight.numel(), size[0], config) == real


def test_double_quantization_saves_0_373_bits_a_weight_and_not_half_a_bit():
    single, double = (
        8 * quantized_bytes(2**30, 1, FinetuneConfig(double_quant=d)) / 2**30 for d in (False, True)
    )
    assert single == pytest.approx(4.5, abs=1e-4)
    assert single - double == pytest.approx(0.373, abs=5e-4)


def test_the_adapter_has_rank_times_inputs_and_outputs():
    shape = ModelShape.named("llama-3.1-8b")
    config = FinetuneConfig(model="llama-3.1-8b", rank=8, target_modules=("q_proj", "v_proj"))
    assert sum(adapter_sizes(Step(config, shape, T4))) == 32 * 8 * (4096 + 4096 + 4096 + 1024)


def test_a_full_fine_tune_trains_every_parameter():
    shape = ModelShape.named("qwen2.5-0.5b")
    step = Step(FinetuneConfig(model="qwen2.5-0.5b", method="full"), shape, T4)
    assert sum(trained_sizes(step)) == parameter_count(shape)


# --- predicted against measured ---------------------------------------------------------------

RUNS = {
    "full": {"method": "full"},
    "full, long": {"method": "full", "max_length": 512, "batch_size": 8},
    "full, tiny batch": {"method": "full", "batch_size": 1, "max_length": 16},
    "full, no checkpointing": {"method": "full", "gradient_checkpointing": False},
    "full, bf16": {"method": "full", "dtype": "bfloat16"},
    "full, adafactor": {"method": "full", "optimizer": "adafactor", "max_length": 16},
    "full, adafactor, bf16": {"method": "full", "optimizer": "adafactor", "dtype": "bfloat16"},
    "full, plain AdamW": {"method": "full", "optimizer": "adamw_torch", "max_length": 16},
    "full, 8-bit optimizer": {"method": "full", "optimizer": "adamw_8bit", "max_length": 16},
    "full, 8-bit, untied": {
        "method": "full",
        "optimizer": "adamw_8bit",
        "max_length": 16,
        "shape": {"tie_word_embeddings": False},
    },
    "lora": {"method": "lora"},
    "lora, no checkpointing": {"method": "lora", "gradient_checkpointing": False},
    "lora, two modules": {"method": "lora", "target_modules": ("q_proj", "v_proj")},
    "lora, high rank": {"method": "lora", "rank": 64},
    "lora, 8-bit optimizer": {"method": "lora", "optimizer": "adamw_8bit", "rank": 64},
    "lora, eager": {"method": "lora", "attention": "eager", "gradient_checkpointing": False},
    "lora, bf16": {"method": "lora", "dtype": "bfloat16"},
    "lora, dropout": {"method": "lora", "lora_dropout": 0.1, "gradient_checkpointing": False},
    "lora, dropout, bf16": {"method": "lora", "lora_dropout": 0.1, "dtype": "bfloat16"},
    "lora, chunked": {"method": "lora", "loss": "chunked", "gradient_checkpointing": False},
    "qlora": {},
    "qlora, no checkpointing": {"gradient_checkpointing": False},
    "qlora, chunked": {"loss": "chunked"},
    "qlora, single quantization": {"double_quant": False},
    "lora, paged optimizer": {"method": "lora", "optimizer": "paged_adamw_32bit", "rank": 64},
    "qlora, 8 bits": {"bits": 8},
    "qlora, 8 bits, no checkpointing": {"bits": 8, "gradient_checkpointing": False},
    "qlora, 8 bits, attention only": {"bits": 8, "target_modules": ("q_proj", "v_proj")},
    "qlora, 8 bits, bf16": {"bits": 8, "dtype": "bfloat16"},
    "qlora, dropout": {"lora_dropout": 0.1},
    "qlora, bf16": {"dtype": "bfloat16", "gradient_checkpointing": False},
    "qlora, upcast": {"upcast": True, "dtype": "bfloat16"},
    "qlora, upcast, no checkpointing": {
        "upcast": True,
        "dtype": "bfloat16",
        "gradient_checkpointing": False,
    },
    "qlora, upcast, attention only": {
        "upcast": True,
        "dtype": "bfloat16",
        "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj"),
    },
    "qlora, upcast, eager": {"upcast": True, "dtype": "bfloat16", "attention": "eager"},
    "qlora, eager": {"attention": "eager", "max_length": 512},
}


@cache
def config_and_measurement(name):
    """Measure each run once for the whole session; simulation is held against it too."""
    folder = Path(tempfile.mkdtemp())
    run = {"batch_size": 8, "max_length": 128, **RUNS[name]}
    config = FinetuneConfig(model=write_shape(folder, **run.pop("shape", {})), **run)
    return config, measure_memory(config)


@pytest.mark.parametrize("name", RUNS)
def test_prediction_and_measurement_nearly_agree(name):
    config, measured = config_and_measurement(name)
    predicted = predict_memory(config)
    assert predicted.weights == measured.weights
    assert predicted.optimizer == measured.optimizer
    assert predicted.allocated == pytest.approx(measured.allocated, rel=0.015)


@pytest.mark.parametrize(
    "shape",
    [
        {"vocab_size": 4096},
        {"vocab_size": 64, "intermediate_size": 512, "num_hidden_layers": 6},
        {"model_type": "qwen2", "tie_word_embeddings": False},
        {"model_type": "qwen3", "head_dim": 32},
        {"model_type": "mistral", "head_dim": 32, "num_key_value_heads": 4},
    ],
)
def test_they_agree_on_other_shapes_and_families(shape, tmp_path):
    config = FinetuneConfig(model=write_shape(tmp_path, **shape), batch_size=8, max_length=128)
    predicted, measured = predict_memory(config), measure_memory(config)
    assert predicted.weights == measured.weights
    assert predicted.allocated == pytest.approx(measured.allocated, rel=0.015)


def test_a_run_does_not_inherit_the_optimizer_choices_of_one_before(tmp_path):
    """bitsandbytes keeps one list for all runs, and finds parameters by an address used again."""
    from bitsandbytes.optim import GlobalOptimManager

    shape = write_shape(tmp_path)
    run = {"model": shape, "optimizer": "adamw_8bit", "max_length": 16}
    measure_memory(FinetuneConfig(method="full", **run))
    assert GlobalOptimManager.get_instance().pid2config
    measure_memory(FinetuneConfig(method="lora", **run))
    assert not GlobalOptimManager.get_instance().pid2config  # a LoRA run overrides nothing


def test_checkpointing_does_not_free_what_8_bit_modules_keep(tmp_path):
    shape = write_shape(tmp_path, num_hidden_layers=8)
    base = {"model": shape, "batch_size": 8, "max_length": 128, "target_modules": ("q_proj",)}
    saved = {}
    for bits in (4, 8):
        kept, freed = (
            measure_memory(FinetuneConfig(bits=bits, gradient_checkpointing=on, **base))
            for on in (False, True)
        )
        saved[bits] = 1 - freed.activations / kept.activations
    assert saved[4] > 0.75
    assert saved[8] < 0.6


def test_paged_states_are_outside_of_pytorchs_memory_on_a_gpu():
    run = {"model": "llama-3.1-8b", "method": "full", "optimizer": "paged_adamw_32bit"}
    on_gpu = predict_memory(FinetuneConfig(**run), CARDS["A100 80GB"])
    on_cpu = predict_memory(FinetuneConfig(**run), Card("CPU", 2**40))
    norms = 65 * 4096  # too small to be paged
    assert on_gpu.optimizer == 8 * norms
    assert on_cpu.optimizer == 8 * parameter_count(ModelShape.named("llama-3.1-8b"))


def test_hopper_gets_larger_workspaces_and_a_cpu_none():
    assert cublas_workspaces(CARDS["H100 80GB"]) == 2 * [32 * 2**20]
    assert cublas_workspaces(CARDS["A100 80GB"]) == cublas_workspaces(T4) == 2 * [8_519_680]
    assert cublas_workspaces(Card("CPU", 2**34)) == []


def test_gradients_are_exact_when_the_optimizer_steps(tmp_path):
    config = FinetuneConfig(
        model=write_shape(tmp_path), method="full", optimizer="adamw_torch", max_length=16
    )
    predicted, measured = predict_memory(config), measure_memory(config)
    assert predicted.moment == "the optimizer's step"
    assert predicted.gradients == measured.gradients


@cache
def benchmark():
    sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("memory_accuracy")


def test_the_arithmetic_is_near_runs_on_a_t4_that_others_published():
    errors = [abs(row.error) for row in benchmark().fitcheck_runs(predict_step)]
    assert len(errors) == 61
    assert statistics.median(errors) < 0.003
    assert max(errors) < 0.015


def test_the_arithmetic_is_near_runs_on_an_a100_that_others_published():
    errors = [abs(row.error) for row in benchmark().litgpt_runs()]
    assert len(errors) == 17
    assert statistics.median(errors) < 0.01
    assert max(errors) < 0.025


@pytest.mark.parametrize(("dtype", "score"), [("float16", 14), ("bfloat16", 16)])
def test_eager_attention_on_a_gpu_is_widest_when_softmax_goes_backward(dtype, score, tmp_path):
    """Result and gradient in fp32, their product, and the scores' gradient, in fp16 if they are."""
    folder = write_shape(tmp_path, vocab_size=64)
    both = {"model": folder, "method": "lora", "attention": "eager", "batch_size": 1}
    short, long = (
        predict_memory(FinetuneConfig(dtype=dtype, max_length=length, **both), CARDS["A100 40GB"])
        for length in (4096, 8192)
    )
    growth = long.allocated - 2 * short.allocated + short.weights + short.optimizer
    per_score = growth / (4 * (8192**2 - 2 * 4096**2))
    mask = 2 / 4  # one for all four heads
    assert per_score == pytest.approx(score + mask, rel=0.01)


# --- the noun ---------------------------------------------------------------------------------


def test_the_parts_add_up_to_what_is_allocated():
    breakdown = predict_memory(FinetuneConfig(model="llama-3.1-8b"), T4)
    assert tuple(breakdown.parts) == PARTS
    assert sum(breakdown.parts.values()) == breakdown.allocated


def test_the_report_names_the_parts_the_total_and_the_source():
    report = repr(MemoryBreakdown(GIB, 2**20, 0, 0, 0, source="predicted", device="Tesla T4"))
    assert report.splitlines()[0] == "predicted on Tesla T4"
    for word in (*PARTS, "allocated", "1.00 GiB", "1.00 MiB"):
        assert word in report


def test_a_measurement_on_the_cpu_says_what_it_counted(tmp_path):
    config = FinetuneConfig(model=write_shape(tmp_path), max_length=16)
    measured = measure_memory(config)
    assert "counted one by one" in repr(measured)
    assert measured.device == "CPU"
    assert set(measured.versions) == {"torch", "transformers", "peft", "bitsandbytes"}
    assert measured.reserved is None


def test_totals_that_have_no_basis_are_none():
    predicted = predict_memory(FinetuneConfig(model="llama-3.1-8b"), T4)
    assert predicted.reserved is None
    assert predicted.process is None


def test_the_peak_is_the_largest_of_the_named_moments():
    config = FinetuneConfig(model="qwen2.5-0.5b")
    moments = step_moments(Step(config, ModelShape.named("qwen2.5-0.5b"), T4))
    names = [moment.moment for moment in moments]
    assert len(set(names)) == 5
    largest = max(moments, key=lambda moment: moment.allocated)
    assert predict_memory(config, T4) == largest


def test_each_knob_turns_the_part_that_it_should():
    base = FinetuneConfig(model="llama-3.1-8b", method="lora")
    at = predict_memory(base, T4)
    change = lambda **kw: predict_memory(FinetuneConfig(model="llama-3.1-8b", **kw), T4)  # noqa: E731
    assert change(method="qlora").weights < at.weights / 2
    assert change(method="lora", rank=64).optimizer == pytest.approx(4 * at.optimizer, rel=1e-4)
    assert change(method="lora", batch_size=8).activations > 1.9 * at.activations
    assert change(method="lora", loss="chunked").activations < at.activations
    assert change(method="lora", optimizer="adamw_8bit").optimizer < at.optimizer / 3
    assert change(method="lora", gradient_checkpointing=False).activations > 2 * at.activations


def test_prediction_imports_no_torch_and_no_transformers():
    code = (
        "import sys; from ftcourse.memory import predict_memory;"
        "from ftcourse.config import FinetuneConfig; from ftcourse.hardware import CARDS;"
        "predict_memory(FinetuneConfig(model='llama-3.1-8b'), CARDS['T4']);"
        "print([m for m in ('torch', 'transformers', 'bitsandbytes') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert run.stdout.strip() == "[]", run.stderr


# --- bad input and what fits ------------------------------------------------------------------


def test_an_unknown_target_module_is_told_with_those_that_exist():
    with pytest.raises(CourseError, match="gate_proj") as caught:
        predict_memory(FinetuneConfig(model="llama-3.1-8b", target_modules=("c_attn",)), T4)
    assert "c_attn" in caught.value.got


def test_a_rank_above_the_layers_width_warns_and_says_why():
    with pytest.warns(UserWarning, match="cannot have a higher rank"):
        predict_memory(FinetuneConfig(model="smollm2-135m", rank=1024), T4)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(CourseError, match=r"config\.json"):
        predict_memory(FinetuneConfig(model=str(tmp_path)), T4)


def test_what_does_not_fit_is_answered_with_the_breakdown_and_a_change_that_fits():
    config = FinetuneConfig(model="llama-3.1-8b", method="lora", max_length=1024)
    error = does_not_fit(config, T4)
    assert "weights" in error.got
    assert "method='qlora'" in error.do
    assert predict_memory(cheapest_change(config, T4), T4).allocated <= T4.memory


def test_the_change_is_the_cheapest_one():
    config = FinetuneConfig(model="qwen2.5-0.5b", method="lora", gradient_checkpointing=False)
    need = predict_memory(config, T4).allocated
    small = Card("small card", need - 1, T4.capability)
    changed = cheapest_change(config, small)
    assert changed.gradient_checkpointing
    assert changed.loss == "full"


def test_nothing_fits_is_said_plainly():
    config = FinetuneConfig(model="llama-3.1-70b", method="full")
    assert cheapest_change(config, CARDS["RTX 3060"]) == config
    assert "smaller model" in does_not_fit(config, CARDS["RTX 3060"]).do
