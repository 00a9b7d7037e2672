import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from data.making.world.names import table
from ftcourse import check
from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.loop import draw_batches, train_on
from ftcourse.lora import inject_lora, target_linears
from ftcourse.models import attach_adapter, load_base
from ftcourse.plots.qlora import plot_healing, plot_qlora, plot_restored, plot_seeds
from ftcourse.qlora import (
    FourBitLinear,
    inject_qlora,
    kept_bytes,
    pack,
    stored_bytes,
    unpack,
)
from ftcourse.quantize import FP4, NF4, bits_per_weight, quantize_blockwise
from ftcourse.sweeps import Mean, load_sweep, select
from ftcourse.widgets.qlora import config_of, qlora_panel, recorded, voice_runs, weight_error

PLAIN = FinetuneConfig(model="embedded", method="full", dtype="float32")
FOUR = FinetuneConfig(
    method="qlora", dtype="float32", rank=8, alpha=16, gradient_checkpointing=False
)
EDITIONS = [("nf4", NF4, False), ("nf4", NF4, True), ("fp4", FP4, False), ("fp4", FP4, True)]


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture(scope="module")
def batches(tokenizer):
    return draw_batches(encode(load_dialogues("train")[:200], tokenizer, 512), 4, 6)


def theirs(**choices):
    config = replace(FOUR, **choices)
    return attach_adapter(load_base(config), config)


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def same_start(mine, other):
    for one, two in zip(trained(mine), trained(other), strict=True):
        one.data.copy_(two.data)


def linear(outputs=128, inputs=128, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def in_bitsandbytes(module, kind, double):
    """Return a bitsandbytes module with the same weight and bias."""
    sides = (module.in_features, module.out_features)
    twin = Linear4bit(*sides, bias=module.bias is not None, quant_type=kind)
    twin.weight.compress_statistics = double
    twin.load_state_dict(module.state_dict())
    return twin.to("cpu").train()


# --- our layer and its twin -------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "levels", "double"), EDITIONS)
def test_codes_constants_outputs_and_gradients_match_bitsandbytes(kind, levels, double):
    for outputs, inputs in ((128, 128), (384, 128), (128, 384)):
        plain = linear(outputs, inputs)
        ours, twin = FourBitLinear(plain, levels, double), in_bitsandbytes(plain, kind, double)
        assert torch.equal(ours.weight, twin.weight)
        for name in ("codes", "constants", "constants of constants"):
            assert stored_bytes(ours)[name] == stored_bytes(twin)[name]
        x = torch.randn(5, inputs)
        inputs_of = [x.clone().requires_grad_() for _ in range(2)]
        results = [layer(each) for layer, each in zip((ours, twin), inputs_of, strict=True)]
        # One product adds the bias at its end, the other during the sum: equal to the last places.
        assert torch.allclose(*results, rtol=1e-6, atol=1e-6)
        for result in results:
            (result * torch.arange(outputs)).sum().backward()
        assert torch.equal(inputs_of[0].grad, inputs_of[1].grad)


@pytest.mark.parametrize(("kind", "levels", "double"), EDITIONS)
def test_losses_and_adapters_of_a_training_match_peft(kind, levels, double, batches):
    real = theirs(quant_type=kind, double_quant=double)
    ours = inject_qlora(load_base(PLAIN), 8, 16, levels, double)
    same_start(ours, real)
    losses = [train_on(model, batches, 5e-3) for model in (ours, real)]
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(trained(ours), trained(real), strict=True))


@pytest.mark.parametrize(("kind", "levels", "double"), EDITIONS)
def test_qlora_is_lora_on_the_restored_weights_bit_for_bit(kind, levels, double, batches):
    real, plain = theirs(quant_type=kind, double_quant=double), load_base(PLAIN)
    for module in target_linears(plain).values():
        module.weight.data = quantize_blockwise(module.weight, levels, 64, double).dequantize()
    inject_lora(plain, rank=8, alpha=16)
    same_start(plain, real)
    assert train_on(plain, batches, 5e-3) == train_on(real, batches, 5e-3)


def test_a_layer_multiplies_in_the_format_that_is_asked_and_answers_in_that_of_its_input():
    layer = FourBitLinear(linear(), compute_dtype=torch.bfloat16)
    x = torch.randn(3, 128)
    assert layer(x).dtype == torch.float32
    narrow = (x.bfloat16() @ layer.restored(torch.bfloat16).T + layer.bias.bfloat16()).float()
    assert torch.allclose(layer(x), narrow, rtol=1e-2, atol=1e-2)
    assert not torch.equal(layer(x), x @ layer.restored(torch.float32).T + layer.bias)


def test_the_gradient_is_that_of_the_restored_numbers_and_the_codes_get_none():
    layer, x = FourBitLinear(linear(bias=False)), torch.randn(4, 128, requires_grad=True)
    gradient = torch.randn(4, 128)
    layer(x).backward(gradient)
    assert torch.equal(x.grad, gradient @ layer.restored(torch.float32))
    assert layer.weight.grad is None


def test_nothing_of_the_restored_weight_is_kept_for_the_backward_pass():
    layer, x = FourBitLinear(linear()), torch.randn(4, 128, requires_grad=True)
    assert kept_bytes(lambda: layer(x)) == 0
    assert kept_bytes(lambda: x @ layer.restored(torch.float32).T) == 128 * 128 * 4


def test_stored_bytes_are_those_of_the_formula():
    layer = FourBitLinear(linear(512, 512))
    mean = 4
    assert sum(stored_bytes(layer).values()) == 512 * 512 * bits_per_weight(4, 64, True) / 8 + mean
    assert stored_bytes(FourBitLinear(linear(512, 512), double_quant=False)) == {
        "codes": 2**17,
        "constants": 2**14,
        "constants of constants": 0,
        "levels": 0,
    }


def test_packed_codes_come_back():
    codes = torch.arange(16, dtype=torch.uint8).repeat(3)
    assert pack(codes).shape == (24, 1)
    assert torch.equal(unpack(pack(codes)), codes)


@pytest.mark.parametrize("codes", [torch.arange(3), torch.tensor([1, 16])])
def test_what_is_no_pair_of_4_bit_codes_is_refused(codes):
    with pytest.raises(CourseError, match="Two codes below 16"):
        pack(codes)


@pytest.mark.filterwarnings("ignore")
def test_a_merge_of_pefts_model_is_right_before_it_has_answered(batches):
    model = theirs()
    with torch.no_grad():
        model.train()
        before = model(**batches[0]).loss.item()
    merged = model.merge_and_unload().train()
    assert merged(**batches[0]).loss.item() == pytest.approx(before, rel=0.02)


def test_the_fresh_texts_tell_nothing_of_the_handbooks_drones():
    drones = set(table("words")["handbook"]["drone"])
    assert "Wren" in drones
    text = course_path("data/fresh.jsonl").read_text(encoding="utf-8")
    assert not drones & set(re.findall(r"[A-Z]\w+", text))
    assert len(text.splitlines()) == 640


# --- what the sweep recorded ------------------------------------------------------------------


def test_the_sweep_has_the_seeds_that_the_lesson_tells_of():
    runs = voice_runs()
    assert {"all weights, not rounded", "LoRA, not rounded", "LoRA, NF4", "LoRA, 2 bits"} <= set(
        runs
    )
    assert all([r["seed"] for r in same][:3] == [0, 1, 2] for same in runs.values())
    for name in ("LoRA, not rounded", "LoRA, NF4"):
        assert [run["seed"] for run in voice_runs(5e-3)[name]] == [0, 1, 2, 3, 4]
    assert all(len(same) == 5 for same in runs.values())
    for task, count in {"noise": 12, "facts": 6, "draws": 9, "exchange": 5}.items():
        assert len(select(load_sweep("qlora"), task=task)) == count


def values(result, **settings):
    return [run[result] for run in select(load_sweep("qlora"), **settings)]


def test_lora_and_nf4_are_equal_at_the_lower_rate_and_undecided_at_the_higher():
    for rate, low, high in ((5e-3, -0.2, 0.2), (1e-2, -1, 1)):
        one, two = (
            [r["test_loss"] for r in voice_runs(rate)[name]]
            for name in ("LoRA, not rounded", "LoRA, NF4")
        )
        gap = Mean(tuple((b - a) / np.mean(one) for a, b in zip(one, two, strict=True)))
        assert low < gap.interval[0] < 0 < gap.interval[1] < high
        assert (gap.mean < 0.05) == (rate == 5e-3)
        assert (sum(x > 0.1 for x in one) == 3) == (rate == 5e-3)


def test_most_bases_come_back_in_80_steps_and_two_bits_in_320():
    for base in ("nf4", "int4 tensor", "nf3"):
        assert min(values("right", task="heal", base=base, steps=80, learning_rate=5e-3)) > 200
    short = values("right", task="heal", base="affine2", steps=80)
    assert len(short) == 6  # three seeds, and three other rates
    assert max(short) < 80
    assert min(values("right", task="heal", base="affine2", steps=320)) > 2 * max(short)


def test_the_start_of_a_decides_more_than_the_order_of_the_letters():
    rows = [values("test_loss", task="draws", seed=seed) for seed in range(3)]
    assert max(rows[0]) < 0.6 * min(rows[1])
    within = np.mean([np.std(row) for row in rows])
    assert np.std([np.mean(row) for row in rows]) > 2 * within


def test_an_adapter_is_worse_beside_other_weights_in_both_directions():
    nf4 = [run for run in voice_runs(5e-3)["LoRA, NF4"]]
    for run in nf4:
        assert run["merged 16: test_loss"] < 1.05 * run["test_loss"]
        assert run["merged original: test_loss"] > 1.2 * run["test_loss"]
    for run in select(load_sweep("qlora"), task="exchange"):
        assert run["on nf4: test_loss"] > 1.2 * run["test_loss"]


def test_the_recorded_error_of_the_levels_is_that_of_the_models_weights():
    linears = target_linears(load_base(PLAIN)).values()
    for name, levels in (("nf4", NF4), ("fp4", FP4)):
        lost, whole = 0.0, 0.0
        for module in linears:
            weight = module.weight.detach()
            lost += ((quantize_blockwise(weight, levels).dequantize() - weight) ** 2).sum()
            whole += (weight**2).sum()
        assert weight_error(name) == pytest.approx(float((lost / whole) ** 0.5), rel=1e-3)


def test_every_setting_was_measured_once():
    results = {"right", "test_loss", "recall_test"}
    keys = [
        tuple(sorted((k, str(v)) for k, v in run.items() if k in SETTING))
        for run in load_sweep("qlora")
    ]
    assert len(set(keys)) == len(keys)
    assert all(results & run.keys() for run in load_sweep("qlora"))


SETTING = {"task", "base", "method", "rank", "learning_rate", "seed", "steps", "noise"}
SETTING |= {"bits", "quant_type", "double_quant", "dtype", "upcast", "batches"}


def test_a_rate_is_chosen_by_the_mean_over_seeds():
    for name, runs in voice_runs().items():
        means = {}
        for rate in (1e-3, 2e-3, 4e-3, 5e-3, 1e-2):
            same = voice_runs(rate).get(name, ())
            if len(same) > 2:
                means[rate] = np.mean([run["validation_loss"] for run in same])
        assert runs[0]["learning_rate"] == min(means, key=means.get)


# --- panel and pictures -----------------------------------------------------------------------


def test_the_panel_begins_with_bare_4_bits_and_says_bytes_and_quality():
    panel = qlora_panel()
    assert "Does not fit the RTX 3060" in panel.text
    run = config_of(**{n: v for n, v in panel.values.items() if n != "card"})
    assert (run.quant_type, run.double_quant, run.dtype) == ("fp4", False, "float32")
    panel.controls["dtype"].value = "bfloat16"
    assert panel.moved.startswith("dtype float32 to bfloat16: -2.46 GiB")
    panel.controls["quant_type"].value = "nf4"
    assert "no byte more or less" in panel.moved
    assert repr(recorded(4, "bfloat16", "nf4", False)) in panel.text


def test_controls_that_the_bits_do_not_use_are_disabled_and_change_nothing():
    panel = qlora_panel()
    panel.controls["bits"].value = 16
    for name in ("quant_type", "double_quant", "upcast"):
        assert panel.controls[name].disabled
    text = panel.text
    panel.controls["quant_type"].value = "nf4"
    assert panel.text == text
    panel.controls["bits"].value = 8
    assert not panel.controls["upcast"].disabled


def test_the_panel_says_what_pages_and_what_nobody_measured():
    panel = qlora_panel()
    panel.controls["paged"].value = True
    assert "168.00 MiB of optimizer states are paged" in panel.text
    panel.controls["upcast"].value = True
    assert "nobody measured these choices" in panel.text


def test_the_pictures_say_their_numbers_in_words():
    assert "8.25 MiB of codes stay" in plot_qlora(4096, 4096, 16).alt
    assert "never more than 192 KiB" in plot_restored([0, 196608, 0], 2**21).alt
    seeds = {"LoRA": Mean((1.0, 2.0, 3.0)), "QLoRA": Mean((1.0, 1.5, 4.0))}
    assert "LoRA: 2.000 ± 2.484 (3 seeds)" in plot_seeds(seeds, "loss").alt
    healed = plot_healing({"int4": (57, [220, 221])}, 239)
    assert healed.alt == "int4: 57 before, [220, 221] after."


# --- the exercises ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mutant", "question"),
    [
        ("bytes_of_trained", 4, "the weight alone"),
        ("bytes_of_trained", 8, "two numbers"),
        ("bytes_of_trained", 12, "How many states does AdamW"),
        ("bytes_of_trained", 128, "in bits"),
        ("bytes_of_trained", "16", "Is yours a str"),
        ("bytes_of_trained", 24, "too large"),
        ("kept_by_checkpointing", 4, "That is one layer"),
        ("kept_by_checkpointing", 256, "a number in bfloat16"),
        ("kept_by_checkpointing", 2**27, "in bytes"),
        ("kept_by_checkpointing", 134.217728, "millions of bytes"),
        ("kept_by_checkpointing", 0, "if nothing of it is kept"),
        ("stored_layer", 29_360_128, "Those are the codes"),
        ("stored_layer", 29_360_128 + 4 * 917_504, "Is that with double"),
        ("stored_layer", 30_277_632, "a constant of their own"),
        ("stored_layer", 30_291_968, "taken off the constants"),
        ("stored_layer", 59_652_100, "fit into a byte"),
        ("stored_layer", 8 * 30_291_972, "in bits"),
        ("stored_layer", 30_277_632 + 3584 + 4, "In which format"),
        ("stored_layer", 30_291_972 + 1088, "levels in it"),
        ("stored_layer", 14336 * 4096 * 4.127 / 8, "Count whole bytes"),
        ("fewest_blocks", 342.67, "there or not"),
        ("fewest_blocks", 342, "few, and they count"),
        ("fewest_blocks", 343, "a constant for each 256"),
        ("fewest_blocks", 344, "two constants of constants"),
        ("fewest_blocks", 345, "one byte more than it saves"),
        ("fewest_blocks", 22_144, "Blocks are asked for"),
        ("fewest_blocks", [346], "Is yours a list"),
    ],
)
def test_a_wrong_number_gets_its_own_question(name, mutant, question):
    verdict = getattr(check, name)(mutant)
    assert not verdict
    assert question in verdict.says


def real_size(module, double):
    return sum(stored_bytes(in_bitsandbytes(module, "nf4", double)).values())


def test_the_exercises_numbers_are_those_of_bitsandbytes():
    assert real_size(linear(64, 345, bias=False), True) > real_size(linear(64, 345), False)
    assert real_size(linear(64, 346, bias=False), True) < real_size(linear(64, 346), False)
    numbers = 14336 * 4096
    assert check.stored_layer(int(numbers * bits_per_weight(4, 64, True) / 8) + 4)


def restored(codes, absmax, codebook, size):
    return (codebook[codes.long()].flatten() * absmax.repeat_interleave(size)).view(codes.shape)


BACKWARDS = {
    "W or W.T": lambda g, c, a, b, s: g @ restored(c, a, b, s).T,
    "Where is absmax": lambda g, c, a, b, s: g @ b[c.long()],
    "its own absmax": lambda g, c, a, b, s: g @ (b[c.long()] * a[0]),
    "neighbours in a row": lambda g, c, a, b, s: g @ (b[c.long()] * a.repeat(s).view(c.shape)),
    "Where is the codebook": lambda g, c, a, b, s: (
        g @ (c.float() * a.repeat_interleave(s).view(c.shape))
    ),
    "multiplied or divided": lambda g, c, a, b, s: g @ restored(c, 1 / a, b, s),
    "keeps its sign": lambda g, c, a, b, s: -g @ restored(c, a, b, s),
    "always 4": lambda g, c, a, b, s: (
        g @ (b[c.long()].flatten() * a.repeat_interleave(4).repeat(4)[: c.numel()]).view(c.shape)
    ),
    "A result of shape": lambda g, c, a, b, s: (g @ restored(c, a, b, s)).sum(0),
    "absmax has one for each block": lambda g, c, a, b, s: g @ (b[c] * a),
    "W is (outputs, inputs)": lambda g, c, a, b, s: restored(c, a, b, s).T @ g,
    "the gradient (tokens, outputs)": lambda g, c, a, b, s: (
        g @ (b[c].flatten() * a.repeat_interleave(s))
    ),
    "end with a return": lambda g, c, a, b, s: None,
}


@pytest.mark.parametrize("question", BACKWARDS)
def test_a_wrong_way_back_gets_its_own_question(question):
    verdict = check.gradient_through(BACKWARDS[question])
    assert not verdict
    assert question in verdict.says


def test_a_way_back_that_only_fits_square_weights_is_found():
    def through(gradient, codes, absmax, codebook, size):
        return gradient @ restored(codes, absmax, codebook, size).view(len(codes), len(codes))

    assert "W is (outputs, inputs)" in check.gradient_through(through).says


def test_what_autograd_computes_passes_the_exercise():
    def through(gradient, codes, absmax, codebook, size):
        x = torch.zeros(len(gradient), codes.shape[1], requires_grad=True)
        (x @ restored(codes, absmax, codebook, size).T).backward(gradient)
        return x.grad

    assert check.gradient_through(through)
    assert "No answer so far" in check.gradient_through(lambda *arguments: ...).says


@pytest.mark.parametrize(
    "name",
    [
        "bytes_of_trained",
        "kept_by_checkpointing",
        "stored_layer",
        "gradient_through",
        "fewest_blocks",
        "fits_and_learns",
    ],
)
def test_the_solutions_pass_and_three_hints_help(name):
    scope = {}
    exec(check.solution(name), scope)
    assert getattr(check, name)(scope["mine"])
    assert len({str(check.hint(name, number)) for number in (1, 2, 3)}) == 3


@pytest.mark.parametrize(
    ("moves", "question"),
    [
        ({"dtype": "float32"}, "Which control takes the most"),
        ({"upcast": True}, "Which control takes the most"),
        ({"double_quant": False}, "It fits narrowly"),
        ({"quant_type": "fp4"}, "Do the other levels take more bytes"),
        ({"model": "smollm2-135m", "dtype": "float32"}, "Which model and which card"),
        ({"card": "A100 80GB"}, "Which model and which card"),
        ({"bits": 8}, "Which control takes the most"),
    ],
)
def test_a_wrong_choice_in_the_panel_gets_its_own_question(moves, question):
    scope = {}
    exec(check.solution("fits_and_learns"), scope)
    for name, value in moves.items():
        scope["mine"].controls[name].value = value
    verdict = check.fits_and_learns(scope["mine"])
    assert not verdict
    assert question in verdict.says


def test_another_thing_than_the_panel_is_no_answer():
    for wrong in (8, "panel", warnings, {"bits": 4}):
        assert "The panel itself" in check.fits_and_learns(wrong).says
