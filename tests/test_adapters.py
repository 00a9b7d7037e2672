"""The ways to train a part of a model: each against peft, or against other code for the same."""

import copy
import importlib
from pathlib import Path

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn
from torch.nn.functional import linear

from ftcourse import check
from ftcourse.adapters import (
    IA3,
    Bottleneck,
    PrefixTuning,
    PromptTuning,
    add_bottlenecks,
    add_ia3,
    train_norms,
)
from ftcourse.check.adapters import bottleneck as bottleneck_exercise
from ftcourse.check.adapters import merge_factors
from ftcourse.errors import CourseError
from ftcourse.loop import train_on
from ftcourse.plots import best_rate, plot_places, plot_rate, plot_rates
from ftcourse.plots.adapters import validation_losses
from ftcourse.shape import ModelShape, load_shape
from ftcourse.sweeps import load_sweep
from ftcourse.widgets.adapters import (
    PLACES,
    SIZES,
    adapters_panel,
    frozen_bytes,
    recorded_runs,
    trained_parameters,
)

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 64}
DROPOUT = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 16},
    "gemma2": LLAMA | {"model_type": "gemma2", "head_dim": 8},
    "gemma3": LLAMA | {"model_type": "gemma3_text", "head_dim": 8},
    "gpt2": GPT2 | DROPOUT,
}
SCALED = {"gpt2": (["c_attn", "c_fc"], ["c_fc"])}
USUAL = (["k_proj", "v_proj", "down_proj"], ["down_proj"])


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(family, real_model):
    torch.manual_seed(0)
    return real_model(FAMILIES[family], device="cpu")


@pytest.fixture
def llama(real_model):
    torch.manual_seed(0)
    return real_model(LLAMA, device="cpu")


@pytest.fixture(scope="module")
def batches():
    """Return ten batches of three texts, as the course's loop takes them."""
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 64, (3, n), generator=draw) for n in (9, 12, 7, 12, 5, 8, 9, 6, 11, 4)]
    labels = [ids.clone() for ids in rows]
    for each in labels:
        each[0, :3] = -100
    return [{"input_ids": ids, "labels": each} for ids, each in zip(rows, labels, strict=True)]


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def same(ours, theirs):
    """Whether two lists of tensors hold the same bits; peft's may have other dimensions."""
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a.reshape(-1), b.reshape(-1)) for a, b in pairs)


def assert_twins(ours, theirs, batches):
    """Compare logits, gradients, and what ten steps make of the trained numbers, bit for bit."""
    outputs = [each.train()(**batches[0]) for each in (ours, theirs)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    for output in outputs:
        output.loss.backward()
    assert same([p.grad for p in trained(ours)], [p.grad for p in trained(theirs)])
    ours.zero_grad(), theirs.zero_grad()
    begin = copy.deepcopy(trained(ours))
    assert train_on(ours, batches, 1e-2) == train_on(theirs, batches, 1e-2)
    assert same(trained(ours), trained(theirs))
    assert not any(torch.equal(a, b) for a, b in zip(begin, trained(ours), strict=True))


def test_ia3_matches_peft(family, model, batches):
    targets, feedforward = SCALED.get(family, USUAL)
    config = IA3Config(
        target_modules=targets,
        feedforward_modules=feedforward,
        fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
    )
    theirs = get_peft_model(copy.deepcopy(model), config)
    assert_twins(add_ia3(model, targets, feedforward), theirs, batches)


def test_prompt_tuning_matches_peft(model, batches):
    config = PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    theirs, ours = get_peft_model(copy.deepcopy(model), config), PromptTuning(model, 5)
    theirs.prompt_encoder["default"].embedding.weight.data = ours.prompt.data.clone()
    assert_twins(ours, theirs, batches)


def test_prefix_tuning_matches_peft(model, batches):
    config = PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    theirs, ours = get_peft_model(copy.deepcopy(model), config), PrefixTuning(model, 5)
    theirs.prompt_encoder["default"].embedding.weight.data = ours.prefix.data.reshape(5, -1).clone()
    assert_twins(ours, theirs, batches)


def test_norms_match_peft(model, batches):
    names = {n.split(".")[-1] for n, m in model.named_modules() if type(m).__name__[-4:] == "Norm"}
    config = LNTuningConfig(target_modules=sorted(names), task_type="CAUSAL_LM")
    theirs = get_peft_model(copy.deepcopy(model), config)
    assert_twins(train_norms(model), theirs, batches)


def test_a_prompt_begins_as_the_words_of_pefts_text(llama, tokenizer):
    ids = [5, 9, 33]
    prompt = PromptTuning(llama, 7, ids).prompt
    assert torch.equal(prompt, llama.get_input_embeddings().weight[[5, 9, 33, 5, 9, 33, 5]])
    assert PromptTuning(llama, 2, ids).prompt.shape == (2, 32)


def by_hand(x, weight, down, down_bias, up, up_bias):
    """Return a bottleneck's output: no modules, no relu, a sum over named axes."""
    y = torch.einsum("ti,oi->to", x, weight)
    inner = torch.einsum("to,no->tn", y, down) + down_bias
    inner = inner * (inner > 0)
    return y + torch.einsum("tn,on->to", inner, up) + up_bias


def test_bottleneck_matches_plain_algebra_with_its_gradients_written_out():
    torch.manual_seed(0)
    layer = Bottleneck(nn.Linear(6, 5, bias=False), 3).double()
    nn.init.normal_(layer.up.weight)
    x, wanted = torch.randn(7, 6).double(), torch.randn(7, 5).double()
    numbers = [layer.base.weight, *layer.down.parameters(), *layer.up.parameters()]
    output = layer(x)
    assert torch.allclose(output, by_hand(x, *numbers), rtol=0, atol=1e-12)
    ((output - wanted) ** 2).sum().backward()
    # The chain rule, step by step and without autograd.
    weight, down, down_bias, up, up_bias = (p.detach() for p in numbers)
    y = x @ weight.T
    inner = y @ down.T + down_bias
    out = 2 * (by_hand(x, weight, down, down_bias, up, up_bias) - wanted)
    middle = (out @ up) * (inner > 0)
    found = [middle.T @ y, middle.sum(0), out.T @ inner.clamp(min=0), out.sum(0)]
    given = [p.grad for p in (*layer.down.parameters(), *layer.up.parameters())]
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(found, given, strict=True))
    assert layer.base.weight.grad is None


def test_bottlenecks_train_as_a_functional_twin_with_its_own_adamw(llama, batches):
    """Ten steps: hooks on the frozen model, torch.func's gradients, AdamW written out.

    The tolerance is for another order of the same sums, and for AdamW's fused arithmetic.
    """
    twin, ours = copy.deepcopy(llama).requires_grad_(False), add_bottlenecks(llama, 4)
    names = [n for n, _ in twin.named_modules() if n.endswith(("o_proj", "down_proj"))]
    parts = ("down.weight", "down.bias", "up.weight", "up.bias")
    begin = copy.deepcopy(ours.state_dict())
    numbers = {f"{n}.{part}": begin[f"{n}.{part}"].clone() for n in names for part in parts}

    def loss(numbers, batch):
        def hook(name):
            down, down_bias, up, up_bias = (numbers[f"{name}.{part}"] for part in parts)
            return lambda module, _, y: (
                y + linear(linear(y, down, down_bias).clamp(min=0), up, up_bias)
            )

        handles = [twin.get_submodule(n).register_forward_hook(hook(n)) for n in names]
        try:
            return twin(**batch).loss
        finally:
            for handle in handles:
                handle.remove()

    first = {name: torch.zeros_like(each) for name, each in numbers.items()}
    second = copy.deepcopy(first)
    for step, batch in enumerate(batches, 1):
        gradients = torch.func.grad(loss)(numbers, batch)
        norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
        # One step of warm-up, then a line to zero; the rate of the first step is zero.
        rate = 1e-2 * (11 - step) / 9 if step > 1 else 0
        for name, gradient in gradients.items():
            gradient = gradient * (1 / (norm + 1e-6)).clamp(max=1)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            size = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
            numbers[name] = numbers[name] - rate * first[name] / (1 - 0.9**step) / size
    train_on(ours, batches, 1e-2)
    found = ours.state_dict()
    apart = max((found[name] - each).abs().max() for name, each in numbers.items())
    moved = max((found[name] - each).abs().max() for name, each in begin.items())
    assert moved > 1e-2
    assert apart < 1e-5


def test_what_is_added_changes_nothing_at_first_and_trains_alone(model, family, batches):
    ends = ("c_proj",) if family == "gpt2" else ("o_proj", "down_proj")
    before = model.eval()(batches[0]["input_ids"]).logits
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    ours = add_bottlenecks(copy.deepcopy(model), 3, ends)
    scaled = add_ia3(copy.deepcopy(model), *SCALED.get(family, USUAL))
    assert torch.equal(ours(batches[0]["input_ids"]).logits, before)
    assert torch.equal(scaled(batches[0]["input_ids"]).logits, before)
    train_on(ours, batches, 1e-2)
    after = {n.replace(".base.", "."): p for n, p in ours.named_parameters()}
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items())
    assert not torch.equal(ours.eval()(batches[0]["input_ids"]).logits, before)


def test_answers_of_a_prompt_or_a_prefix_do_not_depend_on_padding(model):
    """peft ignores the places of padded tokens, so it is no twin here; each text alone is."""
    torch.manual_seed(1)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    for tuned in (PromptTuning(model.eval(), 5), PrefixTuning(model, 5)):
        ids = torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7]])
        both = tuned.generate(input_ids=ids, attention_mask=(ids > 0).long(), **options)
        alone = tuned.generate(input_ids=ids[:1, 2:], **options)
        assert torch.equal(both[0, 2:], alone[0])
        assert torch.equal(both[:, :5], ids)


def test_what_is_added_is_float32_beside_bfloat16_weights(llama, batches):
    half = llama.bfloat16()
    ways = (lambda m: add_bottlenecks(m, 2), add_ia3)
    ways += (lambda m: PromptTuning(m, 2), lambda m: PrefixTuning(m, 2))
    for add in ways:
        ours = add(copy.deepcopy(half))
        assert {p.dtype for p in trained(ours)} == {torch.float32}
        ours(**batches[0]).loss.backward()
        assert any(p.grad.abs().sum() for p in trained(ours))


def test_an_ia3_layer_scales_inputs_or_outputs():
    base = nn.Linear(3, 2)
    inside, outside = IA3(copy.deepcopy(base), feedforward=True), IA3(base)
    inside.scale.data, outside.scale.data = torch.tensor([1.0, 2, 3]), torch.tensor([5.0, 7])
    x = torch.randn(4, 3)
    assert torch.allclose(outside(x), base(x) * torch.tensor([5.0, 7]))
    assert torch.allclose(inside(x), base(x * torch.tensor([1.0, 2, 3])))


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "4", None])
def test_a_size_that_is_no_whole_number_is_refused(llama, size):
    for add in (PromptTuning, PrefixTuning, add_bottlenecks):
        with pytest.raises(CourseError, match="whole number"):
            add(llama, size)


def test_a_target_that_the_model_lacks_is_refused(llama):
    with pytest.raises(CourseError, match="no wrong_proj"):
        add_bottlenecks(llama, 4, ["o_proj", "wrong_proj"])
    with pytest.raises(CourseError, match="no c_attn"):
        add_ia3(llama, ["c_attn"])
    with pytest.raises(CourseError, match="no down_prj"):
        add_ia3(llama, ["k_proj", "down_proj"], ["down_prj"])


@pytest.mark.parametrize("names", ["o_proj", [], ["embed_tokens"], ["input_layernorm"], ["mlp"]])
def test_targets_that_are_no_list_of_linear_layers_are_refused(llama, names):
    with pytest.raises(CourseError, match="list of linear layers"):
        add_bottlenecks(llama, 4, names)


def test_a_second_method_is_refused_before_it_freezes_the_first(llama):
    ways = (add_ia3, train_norms, lambda m: add_bottlenecks(m, 2), lambda m: PromptTuning(m, 2))
    first = (add_ia3, lambda m: add_bottlenecks(m, 2), lambda m: PrefixTuning(m, 2))
    for add in first:
        ours = add(copy.deepcopy(llama))
        count = len(trained(ours))
        for other in ways:
            with pytest.raises(CourseError, match="one method"):
                other(ours)
        assert len(trained(ours)) == count > 0


@pytest.mark.parametrize("option", ["num_beams", "use_cache", "return_dict_in_generate"])
def test_options_that_virtual_tokens_cannot_follow_are_refused(llama, option):
    for tuned in (PromptTuning(llama, 2), PrefixTuning(llama, 2)):
        with pytest.raises(CourseError, match=option):
            tuned.generate(torch.tensor([[3, 4]]), **{option: 2})


def test_a_prompt_begins_as_words_that_are_a_tensor(llama):
    assert PromptTuning(llama, 3, torch.tensor([4, 7])).prompt.shape == (3, 32)


# --- numbers of a method in a model -------------------------------------------------------------


def build(model, method, size):
    """Return a model with what a method trains, made by ours or by peft."""
    places = {"target_modules": [*PLACES], "task_type": "CAUSAL_LM"}
    kin = {
        "LoRA": lambda: LoraConfig(r=size, **places),
        "rsLoRA": lambda: LoraConfig(r=size, use_rslora=True, **places),
        "DoRA": lambda: LoraConfig(r=size, use_dora=True, **places),
        "VeRA": lambda: VeraConfig(r=size, **places),
    }
    if method in kin:
        return get_peft_model(model, kin[method]())
    own = {
        "bottleneck": lambda: add_bottlenecks(model, size),
        "prompt": lambda: PromptTuning(model, size),
        "prefix": lambda: PrefixTuning(model, size),
        "IA3": lambda: add_ia3(model),
        "norms": lambda: train_norms(model),
    }
    return own[method]()


@pytest.mark.parametrize("method", SIZES)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_counted_numbers_are_those_of_a_real_model(family, method, real_model):
    values = FAMILIES[family]
    shape = ModelShape.from_config(architecture_of(values))
    size = 6 if SIZES[method] else 0
    real = sum(p.numel() for p in trained(build(real_model(values, "cpu"), method, size)))
    assert trained_parameters(shape, method, size) == real


def architecture_of(values):
    from transformers import AutoConfig

    return AutoConfig.for_model(**values)


def test_the_recorded_runs_trained_as_many_numbers_as_we_count():
    shape = load_shape("embedded")
    for run in load_sweep("adapters"):
        if run["method"] in SIZES:
            counted = trained_parameters(shape, run["method"], SIZES[run["method"]])
            assert run["parameters"] == counted, run["method"]


def test_a_method_that_nobody_knows_is_refused():
    with pytest.raises(CourseError, match="Use one of LoRA"):
        trained_parameters(load_shape("embedded"), "magic", 2)


# --- the recorded sweep, its pictures and its panel ---------------------------------------------


@pytest.fixture(scope="module")
def runs():
    return recorded_runs()


def test_the_record_has_the_runs_of_its_script_and_no_others(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    script = importlib.import_module("sweep_adapters")
    names = ("method", "rate", "seed", "steps")
    recorded = [tuple(run.get(name) for name in names) for run in load_sweep("adapters")]
    assert len(set(recorded)) == len(recorded)
    assert set(recorded) == {tuple(s.get(name) for name in names) for s in script.settings()}
    assert {method: best_rate(recorded_runs(), method) for method in SIZES} == script.BEST


def test_the_frozen_matrices_of_vera_are_those_of_peft(real_model):
    shape = ModelShape.from_config(architecture_of(LLAMA))
    model = build(real_model(LLAMA, "cpu"), "VeRA", 6)
    matrices = [each["default"] for each in (model.base_model.vera_A, model.base_model.vera_B)]
    assert frozen_bytes(shape, 6) == sum(each.nbytes for each in matrices)


def test_no_best_rate_is_at_an_end_of_its_grid_or_stands_on_one_seed(runs):
    for method in SIZES:
        losses = validation_losses(runs, method)
        best, rates = best_rate(runs, method), [*losses]
        place = rates.index(best)
        assert 0 < place < len(rates) - 1, f"{method}: who knows what comes beyond {best}?"
        for rate in rates[place - 1 : place + 2]:
            rival = losses[rate].values[0] < 1.2 * losses[best].mean  # of seed 0
            assert len(losses[rate].values) == 3 or not rival, (method, rate)


def test_the_pictures_say_their_numbers_in_words(runs):
    ax = plot_rates(runs, [*SIZES])
    assert len(ax.child_axes) == len(SIZES)
    for method in SIZES:
        best = best_rate(runs, method)
        loss = validation_losses(runs, method)[best].mean
        assert f"{method} {loss:.2f} at {best:g}" in ax.alt
    assert "bottleneck: add, at o, down." in plot_places().alt
    loss = validation_losses(runs, "IA3")[0.01].mean
    assert plot_rate(runs, "IA3", 0.01).alt.endswith(f" Marked: rate 0.01, loss {loss:.2f}.")


def test_the_panel_says_bytes_and_what_was_recorded():
    panel = adapters_panel()
    panel.controls["method"].value = "bottleneck"
    panel.controls["size"].value = 64
    assert f"{trained_parameters(load_shape('llama-2-7b'), 'bottleneck', 64):,}" in panel.text
    assert "recorded at size 10, not 64" in panel._view.value
    panel.controls["rate"].value = 2.0
    assert "No run of bottleneck at 2" in panel._view.value
    panel.controls["method"].value, panel.controls["rate"].value = "IA3", 0.2
    assert "The best rate of IA3" in panel._view.value
    assert "Traceback" not in panel._view.value
    for name in panel.controls["model"].options:
        assert "numbers" in panel.text_with(model=name)


# --- wrong answers, each with its question ------------------------------------------------------

MIB = 2**20
WRONG_NUMBERS = {
    "lora_numbers": (
        4096 * 11008, 8 * 4096, 8 * 11008, 8 * 4096 * 11008, 5, "8", None
    ),
    "bottleneck_numbers": (
        32 * (2 * 4096 * 64 + 64 + 4096),
        2 * (2 * 4096 * 64 + 64 + 4096),
        2 * 4096 * 64 + 64 + 4096,
        64 * 2 * 4096 * 64,
        64 * (4096 * 64 + 64 + 4096),
        64 * (2 * 4096 * 64 + 4096),
        64 * (2 * 4096 * 64 + 64),
        32 * (2 * 4096 * 64 + 64 + 4096 + 2 * 11008 * 64 + 64 + 11008),
        10**12,
        True,
    ),
    "reach": (1.2, 0.3, 0.015, 0.0075, 1.6, 0.4, 8, 0.5, -3, 90, "far"),
    "lora_begin": ("lora_A", "alpha", "rank", "both", "zero"),
}  # fmt: skip
RIGHT = {
    "lora_numbers": 8 * (4096 + 11008),
    "bottleneck_numbers": 64 * (2 * 4096 * 64 + 64 + 4096),
    "reach": 0.608,
    "lora_begin": " lora_B.weight ",
}


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_a_wrong_answer_gets_a_question_of_its_own(name):
    judge = getattr(check, name)
    said = [judge(answer).says for answer in WRONG_NUMBERS[name]]
    assert not any(judge(answer) for answer in WRONG_NUMBERS[name])
    assert all("?" in words or "No answer" in words for words in said)
    assert len(set(said)) == len(said)
    assert judge(RIGHT[name])


def detour(y, down, down_bias, up, up_bias):
    return y + torch.relu(y @ down.T + down_bias) @ up.T + up_bias


def relu_of(x):
    return torch.relu(x)


WRONG_BOTTLENECKS = {
    "becomes of y": lambda y, d, e, u, v: relu_of(y @ d.T + e) @ u.T + v,
    "Without one": lambda y, d, e, u, v: y + (y @ d.T + e) @ u.T + v,
    "or behind up": lambda y, d, e, u, v: y + relu_of((y @ d.T + e) @ u.T + v),
    "Where are both": lambda y, d, e, u, v: y + relu_of(y @ d.T) @ u.T,
    "Is down_bias": lambda y, d, e, u, v: y + relu_of(y @ d.T) @ u.T + v,
    "Is up_bias": lambda y, d, e, u, v: y + relu_of(y @ d.T + e) @ u.T,
    "does it multiply": lambda y, d, e, u, v: y * (relu_of(y @ d.T + e) @ u.T + v),
    "is transposed": lambda y, d, e, u, v: y + relu_of(y @ d + e) @ u + v,
    "rows and its columns": lambda y, d, e, u, v: relu_of(y @ d.T + e),
    "Where do they part": lambda y, d, e, u, v: y * 0 + 1,
    "a return": lambda y, d, e, u, v: None,
}
WRONG_MERGES = {
    "a row or a column": lambda w, f: f[:, None] * w,
    "or do they multiply": lambda w, f: w + f,
    "change nothing": lambda w, f: w * (1 + f),
    "Do you divide": lambda w, f: w / f,
    "Where do they part": lambda w, f: w * f**2,
    "as it was": lambda w, f: w,
    "of shape (2, 3)": lambda w, f: (w * f).T,
    "rows and its columns": lambda w, f: w @ f,
}


@pytest.mark.parametrize("asks", WRONG_BOTTLENECKS)
def test_a_wrong_bottleneck_gets_a_question_of_its_own(asks):
    verdict = bottleneck_exercise(WRONG_BOTTLENECKS[asks])
    assert not verdict
    assert asks in verdict.says


@pytest.mark.parametrize("asks", WRONG_MERGES)
def test_a_wrong_merge_gets_a_question_of_its_own(asks):
    verdict = merge_factors(WRONG_MERGES[asks])
    assert not verdict
    assert asks in verdict.says


def test_right_functions_pass_however_they_are_written():
    assert bottleneck_exercise(detour)
    assert merge_factors(lambda w, f: torch.einsum("oi,i->oi", w, f))
    assert merge_factors(lambda w, f: w @ torch.diag(f))


def test_the_panels_target_asks_for_what_is_missing():
    panel = adapters_panel()

    def says(**values):
        for name, value in values.items():
            panel.controls[name].value = value
        return check.few_bytes(panel)

    assert "methods train fewer" in says(method="LoRA", rate=0.01, size=2).says
    assert "at this size" in says(size=1).says
    assert "no run of LoRA at 2" in says(size=2, rate=2.0).says
    assert "the rate, or the method" in says(method="IA3", rate=0.2).says
    assert "also so with llama-2-7b" in says(model="embedded").says
    assert "The panel itself" in check.few_bytes(3).says
    assert says(model="llama-2-7b", method="VeRA", size=256, rate=best_rate(panel_runs(), "VeRA"))


def panel_runs():
    return recorded_runs()


@pytest.mark.parametrize("name", [*RIGHT, "bottleneck", "merge_factors", "few_bytes"])
def test_a_solution_passes_its_own_check(name):
    scope = {"torch": torch}
    exec(check.solution(name), scope)
    assert getattr(check, name)(scope["mine"])
    assert len({str(check.hint(name, number)) for number in (1, 2, 3)}) == 3
