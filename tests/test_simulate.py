import pytest
from cases import some_of

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card, detect
from ftcourse.measure import measure_memory
from ftcourse.memory import Step, predict_memory
from ftcourse.models import architecture
from ftcourse.shape import ModelShape, load_shape
from ftcourse.simulate import progress_bar, simulate_memory, simulate_step
from ftcourse.simulate.simulation import extend
from ftcourse.simulate.trace import layers_alike, trace

T4, A100 = CARDS["T4"], CARDS["A100 80GB"]

# Steps of small models on the CPU are held against real ones in test_memory.py.


EXTENDED = [
    ({}, {"method": "full"}),
    ({"model_type": "qwen2", "tie_word_embeddings": False}, {"method": "lora"}),
    ({"hidden_size": 256, "vocab_size": 64}, {"gradient_checkpointing": False}),
]


@pytest.mark.parametrize("case", some_of(EXTENDED, EXTENDED[:1]))
def test_two_depths_extended_are_all_layers_traced(case, write_shape):
    shape, run = case
    folder = write_shape(num_hidden_layers=5, **shape)
    step = Step(FinetuneConfig(model=folder, max_length=128, **run), load_shape(folder), detect())
    two, three, five = (trace(step, layers) for layers in (2, 3, 5))
    peaks = {moment: sum(ledger.parts.values()) for moment, ledger in five.items()}
    assert max(peaks.values()) > peaks["a layer's backward pass"]
    assert set(five) - set(two) == {"a layer's backward pass"}
    for moment in two:
        assert set(extend(two[moment], three[moment], 3)) == set(five[moment])


def agree(card, **run):
    """Assert that arithmetic and simulation of a run count the same bytes."""
    config = FinetuneConfig(**run)
    predicted, simulated = predict_memory(config, card), simulate_memory(config, card)
    assert predicted.parts == simulated.parts
    return predicted, simulated


LARGE = [("full", "A100 80GB"), ("lora", "T4"), ("qlora", "T4"), ("qlora", "L4")]


@pytest.mark.parametrize("case", some_of(LARGE, [LARGE[0], LARGE[2]]), ids=", ".join)
def test_arithmetic_and_simulation_agree_on_a_model_that_needs_a_real_card(case):
    method, card = case
    agree(CARDS[card], model="llama-3.1-8b", method=method, max_length=1024)


EAGER = [("lora", "float16"), ("lora", "bfloat16"), ("qlora", "float32")]


@pytest.mark.parametrize("case", some_of(EAGER, EAGER[:1]), ids=", ".join)
def test_they_agree_on_eager_attention_as_a_gpu_computes_it(case):
    method, dtype = case
    run = {"method": method, "dtype": dtype, "attention": "eager", "max_length": 2048}
    found = agree(T4, model="smollm2-135m", batch_size=1, loss="chunked", **run)
    assert {each.moment for each in found} == {"the last layer's backward pass"}


SPECIAL = [
    {"bits": 8},
    {"method": "full", "optimizer": "adamw_8bit"},
    {"rank": 64, "optimizer": "paged_adamw_32bit"},
    {"lora_dropout": 0.05, "gradient_checkpointing": False},
    {"bits": 8, "gradient_checkpointing": False},
    {"method": "full", "optimizer": "paged_adamw_8bit"},
    {"lora_dropout": 0.05, "method": "lora"},
    {"lora_dropout": 0.05, "method": "lora", "gradient_checkpointing": False},
]


@pytest.mark.parametrize(
    "run",
    some_of(SPECIAL, SPECIAL[:4]),
    ids=lambda run: " ".join(map(str, run.values())),
)
def test_they_agree_on_bitsandbytes_products_and_optimizers_and_dropout(run):
    agree(A100, model="llama-3.2-1b", max_length=1024, **run)


def test_they_agree_on_adamw_that_copies_all_parameters_at_once_on_a_gpu():
    run = {"method": "full", "optimizer": "adamw_torch", "dtype": "bfloat16", "batch_size": 1}
    found = agree(A100, model="llama-3.2-1b", **run)
    assert {each.moment for each in found} == {"the optimizer's step"}


def test_they_nearly_agree_on_adafactor_that_turns_16_bit_numbers_to_fp32():
    """Adafactor's short-lived vectors are not in the arithmetic: half a MiB of four GiB."""
    run = {"method": "full", "optimizer": "adafactor", "dtype": "bfloat16", "batch_size": 1}
    config = FinetuneConfig(model="llama-3.2-1b", **run)
    predicted, simulated = predict_memory(config, A100), simulate_memory(config, A100)
    assert predicted.moment == simulated.moment == "the optimizer's step"
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.0002)


def test_a_simulated_breakdown_says_so():
    config = FinetuneConfig(model="smollm2-135m", max_length=128)
    assert repr(simulate_memory(config, T4)).startswith("simulated on Tesla T4")


@pytest.mark.slow
def test_flash_attention_keeps_what_pytorchs_own_keeps():
    flash, sdpa = (
        simulate_memory(FinetuneConfig(model="smollm2-135m", attention=name), A100)
        for name in ("flash_attention_2", "sdpa")
    )
    assert flash == sdpa


def test_a_simulation_is_made_once_and_then_read(monkeypatch, tmp_path):
    monkeypatch.setenv("FTCOURSE_CACHE", str(tmp_path))
    config = FinetuneConfig(model="smollm2-135m", max_length=64)
    done = []
    first = simulate_memory(config, T4, progress=done.append)
    assert done == [0.25, 0.5, 0.75, 1.0]
    assert simulate_memory(config, T4, progress=done.append) == first
    assert len(done) == 4
    simulate_memory(config, A100, progress=done.append)
    assert len(done) == 8


def test_no_bar_is_drawn_where_nobody_watches(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with progress_bar() as progress:
        progress(0.5)
        progress(1.0)
    assert capsys.readouterr() == ("", "")


# --- what PyTorch's allocator takes -----------------------------------------------------------


def test_all_scratch_memory_is_reserved_where_a_step_has_no_gaps():
    fields = {"model": "embedded", "method": "full", "dtype": "float32", "max_length": 64}
    config = FinetuneConfig(**fields, batch_size=8, gradient_checkpointing=False)
    simulated = simulate_memory(config, T4, reserved=True)
    assert simulated.reserved >= simulated.allocated


@pytest.mark.extra
def test_reserved_bytes_are_near_those_of_a_published_run(memory_accuracy):
    runs = memory_accuracy.published_steps("fitcheck")
    run, step = next(
        (r, s) for r, s in runs if "135M" in r.config.model and r.config.method == "lora"
    )
    simulated = simulate_step(step, reserved=True)
    assert simulated.reserved > simulated.allocated
    assert simulated.reserved == pytest.approx(run.reserved, rel=0.01)
    assert simulated.process == simulated.reserved + T4.context


@pytest.mark.parametrize(
    ("card", "run"), [(Card("CPU", 2**34), {}), (T4, {"optimizer": "paged_adamw_8bit"})]
)
def test_totals_without_a_basis_are_none(card, run):
    config = FinetuneConfig(model="smollm2-135m", max_length=64, **run)
    simulated = simulate_memory(config, card, reserved=True)
    assert simulated.reserved is None
    assert simulated.process is None


@pytest.mark.slow
def test_a_process_is_not_guessed_where_the_context_is_not_known(write_shape):
    config = FinetuneConfig(model=write_shape(), max_length=64)
    simulated = simulate_memory(config, A100, reserved=True)
    assert simulated.reserved > simulated.allocated
    assert simulated.process is None


# --- families that the arithmetic does not know -----------------------------------------------

STRANGERS = {
    "starcoder2": {},
    "glm4": {"head_dim": 16},
    "falcon": {"ffn_hidden_size": 96},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 3},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture
def stranger(write_shape):
    """Return a function that writes the config of a family that the arithmetic does not know."""
    return lambda family, layers=6: write_shape(
        model_type=family, num_hidden_layers=layers, pad_token_id=0, **STRANGERS[family]
    )


@pytest.mark.parametrize("family", some_of(STRANGERS, ["starcoder2"]))
def test_a_family_that_arithmetic_does_not_know_is_simulated(family, stranger):
    run = {"method": "lora", "dtype": "bfloat16", "max_length": 64}
    config = FinetuneConfig(model=stranger(family), **run)
    with pytest.raises(CourseError, match="simulate_memory"):
        predict_memory(config)
    assert simulate_memory(config).allocated == measure_memory(config).allocated


def test_layers_that_differ_are_all_traced(stranger):
    model = stranger("lfm2")
    shape = ModelShape.of_stranger(architecture(model))
    assert not layers_alike(Step(FinetuneConfig(model=model, dtype="bfloat16"), shape, T4))


@pytest.mark.parametrize(("family", "word"), [("nonsense", "nonsense"), ("bloom", "eager")])
def test_a_model_that_transformers_cannot_build_is_refused_in_three_parts(
    family, word, write_shape
):
    with pytest.raises(CourseError, match=word):
        simulate_memory(FinetuneConfig(model=write_shape(model_type=family)))


def test_flash_attention_of_an_unknown_family_is_simulated_too(stranger):
    run = {"attention": "flash_attention_2", "max_length": 64}
    config = FinetuneConfig(model=stranger("starcoder2", 4), **run)
    assert simulate_memory(config, A100).source == "simulated"
