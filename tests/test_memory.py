"""The arithmetic against real steps, against runs that others published, and what it answers."""

import os
import statistics
import subprocess
import sys

import pytest
from cases import some_of

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card
from ftcourse.measure import measure_memory, measure_timeline
from ftcourse.memory import (
    PARTS,
    MemoryBreakdown,
    Step,
    predict_memory,
    predict_step,
    predict_timeline,
)
from ftcourse.memory.peak import around
from ftcourse.shape import ModelShape
from ftcourse.simulate import simulate_memory, simulate_timeline

T4 = CARDS["T4"]

# --- predicted, simulated and measured --------------------------------------------------------

BF16, NOTHING_AGAIN = {"dtype": "bfloat16"}, {"gradient_checkpointing": False}
UPCAST = {"upcast": True, **BF16}
RUNS = {
    "full": {"method": "full"},
    "full, long": {"method": "full", "max_length": 512},
    "full, one short sequence": {"method": "full", "batch_size": 1, "max_length": 16},
    "full, bf16, no checkpointing": {"method": "full", **BF16, **NOTHING_AGAIN},
    "full, two batches": {"method": "full", "gradient_accumulation_steps": 2, "max_length": 16},
    "qlora, three batches": {"gradient_accumulation_steps": 3, "batch_size": 2, **NOTHING_AGAIN},
    "full, adafactor, bf16": {"method": "full", "optimizer": "adafactor", **BF16},
    "full, plain AdamW": {"method": "full", "optimizer": "adamw_torch", "max_length": 16},
    "full, 8-bit AdamW, untied": {
        "method": "full",
        "optimizer": "adamw_8bit",
        "max_length": 16,
        "shape": {"tie_word_embeddings": False},
    },
    "full, a large vocabulary": {"method": "full", "shape": {"vocab_size": 4096}},
    "lora, no checkpointing": {"method": "lora", **NOTHING_AGAIN},
    "lora, two modules": {"method": "lora", "target_modules": ("q_proj", "v_proj")},
    "lora, high rank, 8-bit AdamW": {"method": "lora", "rank": 64, "optimizer": "adamw_8bit"},
    "lora, eager": {"method": "lora", "attention": "eager", **NOTHING_AGAIN},
    "lora, dropout, bf16": {"method": "lora", "lora_dropout": 0.1, **BF16, **NOTHING_AGAIN},
    "lora, chunked": {"method": "lora", "loss": "chunked", **NOTHING_AGAIN},
    "qlora": {},
    "qlora, wide and deep": {
        "shape": {"vocab_size": 64, "intermediate_size": 512, "num_hidden_layers": 6}
    },
    "qlora, chunked": {"loss": "chunked"},
    "qlora, one quantization, dropout": {"double_quant": False, "lora_dropout": 0.1},
    "qlora, bf16, no checkpointing": {**BF16, **NOTHING_AGAIN},
    "qlora, paged AdamW": {"optimizer": "paged_adamw_32bit"},
    "qlora, 8 bits": {"bits": 8},
    "qlora, 8 bits, no checkpointing": {"bits": 8, **NOTHING_AGAIN},
    "qlora, 8 bits, bf16, attention only": {"bits": 8, "target_modules": ("q_proj",), **BF16},
    "qlora, upcast": UPCAST,
    "qlora, upcast, no checkpointing": {**UPCAST, **NOTHING_AGAIN},
    "qlora, upcast, attention only": {**UPCAST, "target_modules": ("q_proj", "o_proj")},
    "qlora, upcast, biases": {**UPCAST, "shape": {"attention_bias": True, "mlp_bias": True}},
    "qlora, eager, long": {"attention": "eager", "max_length": 512},
}
QUICK = ("full, plain AdamW", "qlora")
SLOW = ("full, a large vocabulary", "lora, eager", "qlora, three batches")


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(
    "name", [*QUICK, *some_of([name for name in RUNS if name not in QUICK], SLOW)]
)
def test_the_three_verbs_count_the_same_tensors_and_bytes(name, write_shape, resident):
    """The Trainer keeps the loss and the number of supervised tokens: 8 bytes more."""
    run = {"batch_size": 8, "max_length": 128, **RUNS[name]}
    config = FinetuneConfig(model=write_shape(**run.pop("shape", {})), **run)
    verbs = (predict_memory, simulate_memory, measure_memory)
    predicted, simulated, measured = (verb(config) for verb in verbs)
    assert predicted.parts == simulated.parts
    assert predicted.allocated == measured.allocated
    assert resident(predicted) == resident(simulated) == resident(measured)


TIMED = {
    "full": {"method": "full"},
    "lora": {"method": "lora"},
    "qlora": {},
    "qlora, chunked": {"loss": "chunked", "gradient_checkpointing": False},
}


@pytest.mark.parametrize("name", some_of(TIMED, ["qlora"]))
def test_the_timelines_of_all_three_verbs_have_the_peak_of_the_breakdown(name):
    config = FinetuneConfig(max_length=320, batch_size=2, **TIMED[name])
    verbs = predict_timeline, simulate_timeline, measure_timeline
    timelines = [verb(config) for verb in verbs]
    peaks = [max(timeline, key=lambda parts: sum(parts.values())) for timeline in timelines]
    breakdown = predict_memory(config)
    assert [sum(peak.values()) for peak in peaks] == 3 * [breakdown.allocated]
    assert peaks[0] == peaks[1] == breakdown.parts
    for timeline in timelines:  # from before the step until after zero_grad
        assert timeline[0]["gradients"] == timeline[-1]["gradients"] == 0
        assert timeline[0]["weights"] == timeline[-1]["weights"] == breakdown.weights
        assert max(timeline[0]["activations"], timeline[-1]["activations"]) <= 8


def highest_gradients(timeline):
    return max(parts["gradients"] for parts in timeline)


def test_each_timeline_has_all_gradients_at_one_moment_and_no_more():
    config = FinetuneConfig(method="full", max_length=32, batch_size=1)
    predicted, simulated = predict_timeline(config), simulate_timeline(config)
    weights = predict_memory(config).weights
    assert highest_gradients(predicted) == highest_gradients(simulated) == weights


@pytest.mark.extra
def test_checkpointing_does_not_free_what_8_bit_modules_keep(write_shape):
    run = {"batch_size": 8, "max_length": 128, "target_modules": ("q_proj",)}
    run["model"] = write_shape(num_hidden_layers=8)
    saved = {}
    for bits in (4, 8):
        kept, freed = (
            measure_memory(FinetuneConfig(bits=bits, gradient_checkpointing=on, **run))
            for on in (False, True)
        )
        saved[bits] = 1 - freed.activations / kept.activations
    assert saved[4] > 0.75
    assert saved[8] < 0.6


def test_the_arithmetic_is_near_runs_on_a_t4_that_others_published(memory_accuracy):
    errors = [abs(row.error) for row in memory_accuracy.fitcheck_runs(predict_step)]
    assert len(errors) == 61
    assert statistics.median(errors) < 0.003
    assert max(errors) < 0.015


def test_the_arithmetic_is_near_runs_on_an_a100_that_others_published(memory_accuracy):
    errors = [abs(row.error) for row in memory_accuracy.litgpt_runs()]
    assert len(errors) == 17
    assert statistics.median(errors) < 0.01
    assert max(errors) < 0.025


# --- what a GPU does in another way -----------------------------------------------------------


def test_hopper_gets_larger_workspaces_and_a_cpu_none():
    config, shape = FinetuneConfig(model="smollm2-135m"), ModelShape.named("smollm2-135m")
    sizes = {
        name: [
            row.bytes * row.count
            for row in around(Step(config, shape, card))
            if row.name == "cuBLAS workspace"
        ]
        for name, card in {**CARDS, "CPU": Card("CPU", 2**34)}.items()
    }
    assert sizes["H100 80GB"] == [2 * 32 * 2**20]
    assert sizes["A100 80GB"] == sizes["T4"] == [2 * 8_519_680]
    assert sizes["CPU"] == []


@pytest.mark.parametrize(("dtype", "score"), [("float16", 14), ("bfloat16", 16)])
def test_eager_attention_on_a_gpu_is_widest_when_softmax_goes_backward(dtype, score, write_shape):
    """Result and gradient in fp32, their product, and the scores' gradient, in fp16 if they are."""
    both = {"method": "lora", "attention": "eager", "batch_size": 1, "dtype": dtype}
    both["model"] = write_shape(vocab_size=64)
    short, long = (
        predict_memory(FinetuneConfig(max_length=length, **both), CARDS["A100 40GB"])
        for length in (4096, 8192)
    )
    growth = long.allocated - 2 * short.allocated + short.weights + short.optimizer
    per_score = growth / (4 * (8192**2 - 2 * 4096**2))
    mask = 2 / 4  # one for all four heads
    assert per_score == pytest.approx(score + mask, rel=0.01)


# --- the noun ---------------------------------------------------------------------------------


def test_the_parts_and_the_rows_add_up_to_what_is_allocated():
    breakdown = predict_memory(FinetuneConfig(model="llama-3.1-8b"), T4)
    assert tuple(breakdown.parts) == PARTS
    assert sum(breakdown.parts.values()) == breakdown.allocated
    assert sum(row.bytes * row.count for row in breakdown.ledger) == breakdown.allocated


def test_the_report_names_the_parts_the_total_and_the_source():
    report = repr(MemoryBreakdown(GIB, 2**20, 0, 0, 0, source="predicted", device="Tesla T4"))
    assert report.splitlines()[0] == "predicted on Tesla T4"
    for word in (*PARTS, "allocated", "1.00 GiB", "1.00 MiB"):
        assert word in report


def test_totals_that_have_no_basis_are_none():
    predicted = predict_memory(FinetuneConfig(model="llama-3.1-8b"), T4)
    assert predicted.reserved is None
    assert predicted.process is None


def test_each_choice_turns_the_part_that_it_should():
    def at(**choices):
        return predict_memory(FinetuneConfig(model="llama-3.1-8b", **choices), T4)

    lora = at(method="lora")
    assert at(method="qlora").weights < lora.weights / 2
    assert at(method="lora", rank=64).optimizer == pytest.approx(4 * lora.optimizer, rel=1e-4)
    assert at(method="lora", batch_size=8).activations > 1.9 * lora.activations
    assert at(method="lora", loss="chunked").activations < lora.activations
    assert at(method="lora", optimizer="adamw_8bit").optimizer < lora.optimizer / 3
    assert at(method="lora", gradient_checkpointing=False).activations > 2 * lora.activations


def test_prediction_imports_no_torch_and_no_transformers():
    code = (
        "import sys; from ftcourse.memory import predict_memory;"
        "from ftcourse.config import FinetuneConfig; from ftcourse.hardware import CARDS;"
        "predict_memory(FinetuneConfig(model='llama-3.1-8b'), CARDS['T4']);"
        "print([m for m in ('torch', 'transformers', 'bitsandbytes') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert run.stdout.strip() == "[]", run.stderr


def test_an_unknown_target_module_is_answered_with_those_that_exist():
    with pytest.raises(CourseError, match="gate_proj") as caught:
        predict_memory(FinetuneConfig(model="llama-3.1-8b", target_modules=("c_attn",)), T4)
    assert "c_attn" in caught.value.got


def test_a_rank_above_the_layers_width_warns_and_says_why():
    with pytest.warns(UserWarning, match="cannot have a higher rank"):
        predict_memory(FinetuneConfig(model="smollm2-135m", rank=1024), T4)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_single_token_is_a_step_too(method):
    one = FinetuneConfig(model="smollm2-135m", method=method, batch_size=1, max_length=1)
    two = FinetuneConfig(model="smollm2-135m", method=method, batch_size=1, max_length=2)
    assert predict_memory(one, T4).allocated <= predict_memory(two, T4).allocated
