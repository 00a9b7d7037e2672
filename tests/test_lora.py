import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from ftcourse import check
from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues
from ftcourse.errors import CourseError
from ftcourse.loop import draw_batches, train_on
from ftcourse.lora import (
    LoRALinear,
    cut_to_rank,
    energy_by_rank,
    inject_lora,
    merge,
    target_linears,
    with_cut_update,
)
from ftcourse.models import attach_adapter, libraries_quiet, linear_modules, load_base
from ftcourse.plots import plot_energy, plot_lora, plot_over_ranks
from ftcourse.sweeps import Mean, load_sweep, select
from ftcourse.widgets import lora as panel_file
from ftcourse.widgets.lora import adapter_count, lora_panel, over_ranks, recorded

PLAIN = FinetuneConfig(model="embedded", method="full")
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WITH_DIRECTION = EVERY[2:]  # q and k of the first layers have all-zero rows
PEFTS = {"rslora": "use_rslora", "dora": "use_dora", "dropout": "lora_dropout"}
VARIANTS = [{}, {"rslora": True}, {"dora": True}, {"dropout": 0.1}, {"dora": True, "dropout": 0.1}]


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture(scope="module")
def batches(tokenizer):
    return draw_batches(encode(load_dialogues("train")[:400], tokenizer, 512), 8, 10)


def load():
    return load_base(PLAIN)


def theirs_beside(model, targets, rank, alpha, **options):
    """Return peft's model with the same choices."""
    choices = {PEFTS[name]: value for name, value in options.items()}
    names = {"r": rank, "lora" + "_alpha": alpha, "target_modules": targets}
    with libraries_quiet():
        return get_peft_model(model, LoraConfig(**names, **choices))


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def both(rank=4, alpha=8, model=load, targets=WITH_DIRECTION, **options):
    """Return our model and peft's, with the same beginning."""
    ours = inject_lora(model(), targets, rank, alpha, **options)
    theirs = theirs_beside(model(), targets, rank, alpha, **options)
    for mine, other in zip(trained(ours), trained(theirs), strict=True):
        mine.data.copy_(other.data)
    return ours, theirs


# --- equal to peft ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_ten_steps_of_training_match_peft_to_the_last_bit(options, batches):
    ours, theirs = both(**options)
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(1)  # for the dropout
        losses.append(train_on(model, batches, 5e-3))
    assert losses[0] == losses[1]
    pairs = [*zip(trained(ours), trained(theirs), strict=True)]
    assert all(torch.equal(mine, other) for mine, other in pairs)
    assert all(torch.equal(mine.grad, other.grad) for mine, other in pairs if mine.grad is not None)
    merged, unloaded = merge(ours), theirs.merge_and_unload()
    for mine, other in zip(merged.parameters(), unloaded.parameters(), strict=True):
        assert torch.equal(mine, other)


def nearly(mine, other):
    """DoRA: peft sends an identity matrix through A and B where we multiply B by A.

    The sums of a row's length may then be added in another order. That is a bit of float32 or of
    float64; where the result is rounded to 16 bits, it may be a bit of those.
    """
    bit = torch.finfo(mine.dtype).eps
    return torch.allclose(mine, other, rtol=16 * bit, atol=16 * bit)


class One(nn.Module):
    """One linear module, as peft wants it: inside another."""

    def __init__(self, linear):
        super().__init__()
        self.inner = linear

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(7, 5, 3), (4, 12, 1), (6, 6, 9)])
def test_forward_gradients_and_merged_weights_match_peft(
    inputs, outputs, rank, options, bias, dtype
):
    torch.manual_seed(inputs)
    linear = nn.Linear(inputs, outputs, bias=bias).to(dtype)
    ours, theirs = both(rank, 3.0, lambda: One(copy.deepcopy(linear)), targets=["inner"], **options)
    for mine, other in zip(trained(ours), trained(theirs), strict=True):
        mine.data = (mine + torch.randn_like(mine)).data
        other.data.copy_(mine.data)
    x = torch.randn(2, 3, inputs).to(dtype)
    results = [model(x.clone()) for model in (ours, theirs)]
    assert results[0].dtype == results[1].dtype == dtype
    same = nearly if options.get("dora") else torch.equal
    assert same(*results)
    for result in results:
        result.float().square().sum().backward()
    for mine, other in zip(trained(ours), trained(theirs), strict=True):
        assert mine.dtype == other.dtype
        assert same(mine.grad, other.grad)
    merged, unloaded = merge(ours), theirs.merge_and_unload()
    assert same(merged.inner.weight, unloaded.inner.weight)


def test_all_linear_means_the_modules_that_peft_means():
    ours = {name.rpartition(".")[2] for name in target_linears(load())}
    assert ours == set(linear_modules(load())) == set(EVERY)
    theirs = attach_adapter(load(), FinetuneConfig(method="lora", rank=8))
    assert sum(p.numel() for p in trained(theirs)) == adapter_count("embedded", 8)


def test_lora_stands_beside_a_quantized_module_but_cannot_be_merged_into_it():
    quantized = inject_lora(load_base(replace(PLAIN, method="qlora")), rank=2)
    assert {p.dtype for p in trained(quantized)} == {torch.float32}
    assert torch.isfinite(quantized(input_ids=torch.tensor([[1, 5, 9]])).logits).all()
    with pytest.raises(CourseError, match="weights are codes"):
        merge(quantized)
    with pytest.raises(CourseError, match="reads the weight's rows"):
        inject_lora(load_base(replace(PLAIN, method="qlora")), "v_proj", dora=True)


# --- what it promises ------------------------------------------------------------------------


def test_a_model_begins_unchanged_and_frozen_but_for_the_adapter():
    model = inject_lora(load(), rank=8)
    ids = torch.tensor([[1, 5, 9, 200]])
    assert torch.equal(model(input_ids=ids).logits, load()(input_ids=ids).logits)
    names = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert names == {"lora_A", "lora_B"}
    assert sum(p.numel() for p in trained(model)) == adapter_count("embedded", 8) == 102_400


def test_the_same_model_comes_back():
    model = load()
    assert inject_lora(model, ["q_proj", "v_proj"], 40, 80) is model
    assert sum(p.numel() for p in trained(model)) == 102_400
    assert isinstance(model.model.layers[0].self_attn.q_proj, LoRALinear)
    assert type(model.model.layers[0].self_attn.k_proj) is nn.Linear


def test_the_first_step_moves_b_alone(batches):
    model = inject_lora(load(), rank=2)
    model(**batches[0]).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert bool(parameter.grad.any()) == name.endswith("lora_B") or "q_proj" in name


def test_rslora_is_a_scaling():
    linear = nn.Linear(8, 8)
    assert LoRALinear(linear, 64, 16, rslora=True).scaling == LoRALinear(linear, 64, 128).scaling
    assert LoRALinear(linear, 8, 16).scaling == 2


@pytest.mark.parametrize("options", [{}, {"dora": True}], ids=str)
def test_a_merge_keeps_outputs_bias_format_and_mode(options):
    linear = nn.Linear(6, 4).eval()
    lora = LoRALinear(linear, 2, 4, **options)
    nn.init.normal_(lora.lora_B)
    x, plain = torch.randn(3, 6), merge(lora)
    assert type(plain) is nn.Linear
    assert not plain.training
    assert torch.equal(plain.bias, linear.bias)
    assert torch.allclose(plain(x), lora(x), atol=1e-5)
    assert not torch.equal(plain.weight, linear.weight)  # and the frozen one is as it was


def test_a_merged_model_can_get_another_adapter():
    model = inject_lora(load(), rank=2)
    with pytest.raises(CourseError, match="has LoRA already"):
        inject_lora(model, rank=2)
    assert target_linears(merge(model))


def test_dora_refuses_rows_without_direction_and_leaves_the_model_as_it_was():
    model = load()
    with pytest.raises(CourseError, match="20 of its 128 rows are all zeros"):
        inject_lora(model, dora=True)
    assert len(trained(model)) == len([*model.parameters()])
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    weight = torch.eye(4)
    weight[2] = 0
    linear = nn.Linear(4, 4)
    linear.weight.data = weight
    with pytest.raises(CourseError, match="1 of its 4 rows"):
        LoRALinear(linear, dora=True)


def test_peft_divides_by_a_row_of_zeros(batches):
    """What our refusal is for; when peft repairs it, the lesson has to say so."""
    dora = theirs_beside(load(), ["q_proj"], 4, 8, dora=True)
    assert all(loss != loss for loss in train_on(dora, batches[:2], 1e-3))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rank": 0}, "rank is a whole number"),
        ({"rank": 2.0}, "rank is a whole number"),
        ({"rank": True}, "rank is a whole number"),
        ({"alpha": 0}, "alpha is a positive number"),
        ({"alpha": float("nan")}, "alpha is a positive number"),
        ({"alpha": "8"}, "alpha is a positive number"),
        ({"alpha": None}, "alpha is a positive number"),
        ({"dropout": 1.0}, "dropout is a share"),
    ],
)
def test_bad_choices_are_refused_before_anything_is_changed(wrong, says):
    model = load()
    with pytest.raises(CourseError, match=says):
        inject_lora(model, **wrong)
    assert target_linears(model)
    with pytest.raises(CourseError, match=says):
        LoRALinear(nn.Linear(4, 4), **wrong)


@pytest.mark.parametrize("wanted", ["c_attn", ["q_proj", "embed_tokens"], [], "proj"])
def test_an_unknown_target_is_an_error_that_names_the_known_ones(wanted):
    with pytest.raises(CourseError, match="q_proj, k_proj"):
        inject_lora(load(), wanted)


def test_an_unknown_choice_leaves_the_model_as_it_was():
    model = load()
    with pytest.raises(TypeError, match="use_dora"):
        inject_lora(model, use_dora=True)
    assert len(trained(model)) == len([*model.parameters()])


def test_a_rank_may_be_a_number_of_numpy():
    assert LoRALinear(nn.Linear(4, 4), np.int64(2), np.float32(4)).scaling == 2


def test_only_linear_modules_are_wrapped():
    with pytest.raises(CourseError, match="a Embedding"):
        LoRALinear(nn.Embedding(4, 4))
    with pytest.raises(CourseError, match="holds linear modules"):
        inject_lora(nn.Linear(4, 4))


# --- what an update holds --------------------------------------------------------------------


def test_energy_and_cut_are_those_of_the_singular_values():
    torch.manual_seed(0)
    matrix = torch.randn(6, 4)
    energy = energy_by_rank(matrix)
    for rank in (1, 2, 3, 4):
        cut = cut_to_rank(matrix, rank)
        assert torch.linalg.matrix_rank(cut) == rank
        left = (matrix - cut).square().sum() / matrix.square().sum()
        assert energy[rank - 1] == pytest.approx(1 - left.item(), abs=1e-5)
    assert torch.allclose(cut_to_rank(matrix, 4), matrix, atol=1e-5)


def test_a_matrix_in_16_bits_is_cut_in_32_and_comes_back_in_16():
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    cut = cut_to_rank(matrix, 2)
    assert cut.dtype == torch.bfloat16
    assert torch.equal(cut, cut_to_rank(matrix.float(), 2).bfloat16())
    assert energy_by_rank(torch.zeros(3, 5)).tolist() == [0, 0, 0]


def test_a_cut_update_of_full_rank_is_the_update_and_of_none_is_the_base():
    base, tuned = load(), load()
    for module in target_linears(tuned).values():
        module.weight.data += 0.01 * torch.randn_like(module.weight)
    whole, none = (target_linears(with_cut_update(base, tuned, rank)) for rank in (128, 0))
    for name, module in target_linears(tuned).items():
        assert torch.allclose(whole[name].weight, module.weight, atol=1e-5)
        assert torch.equal(none[name].weight, target_linears(base)[name].weight)


def test_the_pictures_say_their_numbers_in_words():
    assert "2,048 trained entries" in plot_lora(128, 128, 8).alt
    curve = [[0.5, 0.95, 1.0], [0.3, 0.89, 1.0]]
    assert "full: 40% at rank 1; 90 % at rank 2." in plot_energy({"full": curve}).alt
    lines = {"LoRA": {1: Mean((0.1, 0.2, 0.3)), 8: Mean((0.5,))}}
    alt = plot_over_ranks(lines, "right", {"full": Mean((0.8, 1.0))}, {"now": (8, 0.4)}).alt
    assert "LoRA: 0.200" in alt
    assert "now: 0.400 at rank 8" in alt


# --- the recorded sweep and the panel --------------------------------------------------------


def test_the_sweep_has_three_seeds_for_each_point_and_counts_what_is_trained():
    for task in ("voice", "facts"):
        for rank, mean in over_ranks(task).items():
            assert len(mean.values) == 3, (task, rank)
    for run in select(load_sweep("lora"), method="lora"):  # the longer runs, too
        targets = run["targets"] if isinstance(run["targets"], str) else ", ".join(run["targets"])
        assert run["parameters"] == adapter_count("embedded", run["rank"], targets)


@pytest.mark.parametrize("task", ["voice", "facts"])
def test_the_best_rate_of_a_rank_is_not_at_an_end_of_what_was_tried(task):
    for rank, rates in over_ranks(task, result="learning_rate").items():
        runs = select(load_sweep("lora"), task=task, rank=rank, alpha=2 * rank, steps=None, seed=0)
        tried = [run["learning_rate"] for run in runs]
        assert min(tried) < rates.values[0] < max(tried), rank


def test_the_longer_runs_are_not_among_the_points():
    longer = [run for run in load_sweep("lora") if "steps" in run]
    assert {run["steps"] for run in longer} == {320, 480, 960}
    assert not [run for run in panel_file._runs() if "steps" in run]


def test_of_two_equal_rates_the_lower_one_is_the_point(monkeypatch):
    point = {"task": "facts", "method": "lora", "rank": 3, "alpha": 6, "targets": panel_file.ALL}
    tie = [point | {"seed": 0, "recall_validation": 0.5, "learning_rate": r} for r in (0.2, 0.1)]
    monkeypatch.setattr(panel_file, "_runs", lambda: tie)
    assert panel_file._at("facts", 3, 6, panel_file.ALL)[0]["learning_rate"] == 0.1


def test_the_panel_counts_and_says_what_was_recorded():
    panel = lora_panel()
    assert "102,400 numbers are trained, 8.1% of it; scaling 2" in panel.text
    assert "llama-3.1-8b: 20,971,520 numbers, 0.26% of it" in panel.text
    assert "(3 seeds)" in panel.text
    assert "nobody measured it" in panel.text_with(rank=4, alpha=512)
    assert repr(recorded("facts", 40, 80, "q_proj, v_proj")) in panel.text_with(
        task="facts", rank=40, alpha=80, targets="q_proj, v_proj"
    )


def test_the_panel_trains_a_point_of_the_voice_and_no_other(monkeypatch):
    asked = []
    monkeypatch.setattr(panel_file, "train_voice", lambda *point: asked.append(point) or 0.123)
    panel = lora_panel()
    panel.buttons["train"].click()
    rate = panel_file._at("voice", 8, 16, "all-linear")[0]["learning_rate"]
    assert asked == [(8, 16, "all-linear", rate)]
    assert "trained now: held-out loss 0.123" in panel.text
    panel.controls["task"].value = "facts"
    panel.buttons["train"].click()
    assert "Choose the task voice" in panel.text
    assert len(asked) == 1


@pytest.mark.extra
def test_a_live_point_is_the_recorded_one():
    run = select(load_sweep("lora"), task="voice", rank=1, seed=0, learning_rate=2e-2)[0]
    live = panel_file.train_voice(1, 2, "all-linear", 2e-2)
    assert live == pytest.approx(run["test_loss"], rel=0.5)  # another machine rounds otherwise


# --- the exercises ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mutant", "question"),
    [
        ("bits_with_constant", 4, "Where is the constant"),
        ("bits_with_constant", 36, "a constant of its own"),
        ("bits_with_constant", 0.5, "the weight's own code"),
        ("bits_with_constant", 6, "What is stored for a block"),
        ("bits_with_constant", 4.25, "16 or 32"),
        ("bits_with_constant", "4.5", "Is yours a str"),
        ("lost_to_outlier", 0, "a scale for each weight"),
        ("lost_to_outlier", 1, "How large is a step"),
        ("lost_to_outlier", 2, "the sign help"),
        ("lost_to_outlier", 4, "What becomes of 7.0"),
        ("lost_to_outlier", True, "Is yours a bool"),
        ("adapter_numbers", 106_496, "That is one layer"),
        ("adapter_numbers", 4_194_304, "as many outputs as inputs"),
        ("adapter_numbers", 2_097_152, "A alone, or q_proj alone"),
        ("adapter_numbers", 425_984, "That is rank 1"),
        ("adapter_numbers", 20_971_520, "all linear modules"),
        ("adapter_numbers", 5_368_709_120, "multiply the two sides"),
        ("same_scaling", 8, "8 / 16"),
        ("same_scaling", 2, "the number that both multiply by"),
        ("same_scaling", 0.5, "plain LoRA's scaling"),
        ("same_scaling", 128, "multiply alpha by the rank"),
        ("same_scaling", 4, "the root of the rank"),
    ],
)
def test_a_wrong_number_gets_its_own_question(name, mutant, question):
    verdict = getattr(check, name)(mutant)
    assert not verdict
    assert question in verdict.says


def test_the_count_of_the_exercise_is_the_real_one():
    assert check.adapter_numbers(adapter_count("llama-3.1-8b", 8, "q_proj, v_proj"))


FORWARDS = {
    "Where is the scaling": lambda x, W, A, B, alpha: x @ W.T + x @ A.T @ B.T,
    "By what is alpha divided": lambda x, W, A, B, alpha: x @ W.T + alpha * x @ A.T @ B.T,
    "alpha scale the frozen path": lambda x, W, A, B, alpha: (
        alpha / len(A) * (x @ W.T + x @ A.T @ B.T)
    ),
    "Is the rank always 8": lambda x, W, A, B, alpha: x @ W.T + alpha / 8 * x @ A.T @ B.T,
    "Is the rank always 2": lambda x, W, A, B, alpha: x @ W.T + alpha / 2 * x @ A.T @ B.T,
    "scaling of rsLoRA": lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) ** 0.5 * x @ A.T @ B.T,
    "upper or the lower part": lambda x, W, A, B, alpha: x @ W.T + len(A) / alpha * x @ A.T @ B.T,
    "The rank is a side of A": lambda x, W, A, B, alpha: (
        x @ W.T + alpha / A.shape[1] * x @ A.T @ B.T
    ),
    "or take it away": lambda x, W, A, B, alpha: x @ W.T - alpha / len(A) * x @ A.T @ B.T,
    "Where is the frozen path": lambda x, W, A, B, alpha: alpha / len(A) * x @ A.T @ B.T,
    "by its transpose": lambda x, W, A, B, alpha: x @ W + alpha / len(A) * x @ A.T @ B.T,
    "Which meets x first": lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) * x @ B @ A,
    "Which sides fit together": lambda x, W, A, B, alpha: x @ W.T + x @ A @ B,
    "end with a return": lambda x, W, A, B, alpha: None,
}


@pytest.mark.parametrize("question", FORWARDS)
def test_a_wrong_forward_pass_gets_its_own_question(question):
    verdict = check.lora_forward(FORWARDS[question])
    assert not verdict
    assert question in verdict.says


def test_our_own_module_passes_the_exercise():
    def forward(x, W, A, B, alpha):
        linear = nn.Linear(6, 6, bias=False)
        linear.weight.data = W
        lora = LoRALinear(linear, len(A), alpha)
        lora.lora_A.data, lora.lora_B.data = A, B
        return lora(x)

    assert check.lora_forward(forward)


BEGINS = {
    "Is B A zero": lambda o, i, r: (torch.randn(r, i), torch.randn(o, r)),
    "which gradient do A and B get": lambda o, i, r: (torch.zeros(r, i), torch.zeros(o, r)),
    "which one begins at zero": lambda o, i, r: (torch.zeros(r, i), torch.randn(o, r)),
    "Did you return B, A": lambda o, i, r: (torch.zeros(o, r), torch.randn(r, i)),
    "asked are ((3, 7), (5, 3))": lambda o, i, r: (torch.randn(i, r), torch.zeros(r, o)),
    "asked are ((2, 6), (4, 2))": lambda o, i, r: (torch.randn(3, 7), torch.zeros(5, 3)),
    "multiples of others": lambda o, i, r: (torch.ones(r, i), torch.zeros(o, r)),
    "Two tensors": lambda o, i, r: torch.zeros(r, i),
    "two tensors": lambda o, i, r: ([[0.1] * i] * r, [[0.0] * r] * o),
    "Are all numbers finite": lambda o, i, r: (torch.full((r, i), torch.nan), torch.zeros(o, r)),
    "a format with fractions": lambda o, i, r: (torch.ones(r, i).int(), torch.zeros(o, r).int()),
}


@pytest.mark.parametrize("question", BEGINS)
def test_a_wrong_beginning_gets_its_own_question(question):
    verdict = check.begin_pair(BEGINS[question])
    assert not verdict
    assert question.lower() in verdict.says.lower()


def test_the_beginning_that_the_text_asks_for_passes_in_any_format():
    for dtype in (torch.float32, torch.bfloat16):
        kind = {"dtype": dtype}
        assert check.begin_pair(
            lambda o, i, r, k=kind: (torch.randn(r, i, **k), torch.zeros(o, r, **k))
        )


@pytest.mark.parametrize("name", ["lora_forward", "begin_pair"])
def test_a_function_that_is_not_written_yet_is_no_mistake(name):
    assert "No answer so far" in getattr(check, name)(lambda *arguments: ...).says
    assert "A function is asked for" in getattr(check, name)(3).says


def solved_panel():
    scope = {}
    exec(check.solution("half_the_facts"), scope)
    return scope["mine"]


def test_the_solution_of_the_panels_target_passes():
    assert check.half_the_facts(solved_panel())


@pytest.mark.parametrize(
    ("moves", "question"),
    [
        ({"task": "voice"}, "Which task is asked for"),
        ({"alpha": 512}, "Nobody measured this point"),
        ({"rank": 1, "alpha": 2}, "What would make room"),
        ({"rank": 64, "alpha": 128}, "Does a smaller rank reach it"),
    ],
)
def test_a_wrong_point_of_the_panel_gets_its_own_question(moves, question):
    panel = solved_panel()
    for name, value in moves.items():
        panel.controls[name].value = value
    verdict = check.half_the_facts(panel)
    assert not verdict
    assert question in verdict.says


def test_another_thing_than_the_panel_is_no_answer():
    assert "The panel itself" in check.half_the_facts(8).says
