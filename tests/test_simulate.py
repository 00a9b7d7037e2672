import pytest
from test_memory import RUNS, benchmark, config_and_measurement, write_shape

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card, detect
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.memory.step import Step
from ftcourse.models import architecture
from ftcourse.shape import ModelShape, load_shape
from ftcourse.simulate import progress_bar, simulate_memory, simulate_step
from ftcourse.simulate.trace import extend, layers_alike, trace


@pytest.mark.parametrize("name", RUNS)
def test_simulation_and_measurement_agree_to_a_fraction_of_a_percent(name):
    config, measured = config_and_measurement(name)
    simulated = simulate_memory(config)
    assert simulated.weights == measured.weights
    assert simulated.optimizer == measured.optimizer
    assert simulated.allocated == pytest.approx(measured.allocated, rel=0.005)


@pytest.mark.parametrize(
    ("shape", "run"),
    [
        ({}, {"method": "full"}),
        ({"model_type": "qwen2", "tie_word_embeddings": False}, {"method": "lora"}),
        ({"hidden_size": 256, "vocab_size": 64}, {"gradient_checkpointing": False}),
    ],
)
def test_two_depths_extended_are_all_layers_traced(shape, run, tmp_path):
    folder = write_shape(tmp_path, num_hidden_layers=7, **shape)
    step = Step(FinetuneConfig(model=folder, max_length=128, **run), load_shape(folder), detect())
    two, three, seven = (trace(step, layers) for layers in (2, 3, 7))
    peaks = {moment: sum(parts.values()) for moment, parts in seven.items()}
    assert max(peaks.values()) > peaks.pop("a layer's backward pass")
    for moment, peak in peaks.items():
        assert sum(extend(two[moment], three[moment], 7).values()) == peak


@pytest.mark.parametrize("card", ["T4", "A100 80GB"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_arithmetic_and_simulation_agree_on_a_model_that_needs_a_real_card(method, card):
    config = FinetuneConfig(model="llama-3.1-8b", method=method, max_length=1024)
    predicted = predict_memory(config, CARDS[card])
    simulated = simulate_memory(config, CARDS[card])
    assert predicted.weights == simulated.weights
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.01)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_they_agree_on_eager_attention_as_a_gpu_computes_it(method, dtype):
    run = {"method": method, "dtype": dtype, "attention": "eager", "max_length": 2048}
    config = FinetuneConfig(model="smollm2-135m", batch_size=1, loss="chunked", **run)
    predicted, simulated = predict_memory(config, CARDS["T4"]), simulate_memory(config, CARDS["T4"])
    assert simulated.moment == "the last layer's backward pass"
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.01)


def test_a_simulated_breakdown_says_so():
    config = FinetuneConfig(model="smollm2-135m", max_length=128)
    assert repr(simulate_memory(config, CARDS["T4"])).startswith("simulated on Tesla T4")


@pytest.mark.parametrize(
    "run",
    [
        {"bits": 8},
        {"bits": 8, "gradient_checkpointing": False},
        {"method": "full", "optimizer": "adamw_8bit"},
        {"method": "full", "optimizer": "paged_adamw_8bit"},
        {"rank": 64, "optimizer": "paged_adamw_32bit"},
        {"lora_dropout": 0.05, "gradient_checkpointing": False},
        {"lora_dropout": 0.05, "method": "lora"},
        {"lora_dropout": 0.05, "method": "lora", "gradient_checkpointing": False},
    ],
)
def test_they_agree_on_bitsandbytes_products_and_optimizers_and_dropout(run):
    config = FinetuneConfig(model="llama-3.2-1b", max_length=1024, **run)
    predicted = predict_memory(config, CARDS["A100 80GB"])
    simulated = simulate_memory(config, CARDS["A100 80GB"])
    assert predicted.weights == simulated.weights
    assert predicted.optimizer == simulated.optimizer
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.01)


def test_flash_attention_keeps_what_pytorchs_own_keeps():
    flash, sdpa = (
        simulate_memory(FinetuneConfig(model="smollm2-135m", attention=name), CARDS["A100 80GB"])
        for name in ("flash_attention_2", "sdpa")
    )
    assert flash == sdpa


def test_a_simulation_is_made_once_and_then_read(monkeypatch, tmp_path):
    monkeypatch.setenv("FTCOURSE_CACHE", str(tmp_path))
    config = FinetuneConfig(model="smollm2-135m", max_length=64)
    done = []
    first = simulate_memory(config, CARDS["T4"], progress=done.append)
    assert done == [0.25, 0.5, 0.75, 1.0]
    assert simulate_memory(config, CARDS["T4"], progress=done.append) == first
    assert len(done) == 4
    simulate_memory(config, CARDS["A100 80GB"], progress=done.append)
    assert len(done) == 8


def test_no_bar_is_drawn_where_nobody_watches(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with progress_bar() as progress:
        progress(0.5)
        progress(1.0)
    assert capsys.readouterr() == ("", "")


def test_reserved_bytes_are_near_those_of_a_published_run():
    runs = benchmark().published_steps("fitcheck")
    run, step = next(
        (r, s) for r, s in runs if "135M" in r.config.model and r.config.method == "lora"
    )
    simulated = simulate_step(step, reserved=True)
    assert simulated.reserved > simulated.allocated
    assert simulated.reserved == pytest.approx(run.reserved, rel=0.01)
    assert simulated.process == simulated.reserved + CARDS["T4"].context


@pytest.mark.parametrize(
    ("card", "run"),
    [(Card("CPU", 2**34), {}), (CARDS["T4"], {"optimizer": "paged_adamw_8bit"})],
)
def test_totals_without_a_basis_are_none(card, run):
    config = FinetuneConfig(model="smollm2-135m", max_length=64, **run)
    simulated = simulate_memory(config, card, reserved=True)
    assert simulated.reserved is None
    assert simulated.process is None


def test_a_process_is_not_guessed_where_the_context_is_not_known():
    config = FinetuneConfig(model="smollm2-135m", max_length=64)
    simulated = simulate_memory(config, CARDS["A100 80GB"], reserved=True)
    assert simulated.reserved > simulated.allocated
    assert simulated.process is None


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor"])
def test_they_agree_on_an_optimizer_that_needs_room_of_its_own(optimizer):
    """On a GPU AdamW copies all parameters at once; Adafactor turns 16-bit numbers to fp32."""
    config = FinetuneConfig(
        model="llama-3.2-1b", method="full", optimizer=optimizer, dtype="bfloat16", batch_size=1
    )
    card = CARDS["A100 40GB"]
    predicted, simulated = predict_memory(config, card), simulate_memory(config, card)
    assert predicted.moment == simulated.moment == "the optimizer's step"
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.002)


STRANGERS = {
    "starcoder2": {},
    "glm4": {"head_dim": 16},
    "falcon": {"ffn_hidden_size": 96},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 3},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("family", STRANGERS)
def test_a_family_that_arithmetic_does_not_know_is_simulated(family, tmp_path):
    folder = write_shape(
        tmp_path, model_type=family, num_hidden_layers=6, pad_token_id=0, **STRANGERS[family]
    )
    config = FinetuneConfig(model=folder, method="lora", dtype="bfloat16", max_length=64)
    with pytest.raises(CourseError, match="simulate_memory"):
        predict_memory(config)
    simulated, measured = simulate_memory(config), measure_memory(config)
    assert simulated.allocated == pytest.approx(measured.allocated, rel=0.002)


def test_layers_that_differ_are_all_traced(tmp_path):
    shape = STRANGERS["lfm2"] | {"model_type": "lfm2", "num_hidden_layers": 6, "pad_token_id": 0}
    model = write_shape(tmp_path, **shape)
    stranger = ModelShape.of_stranger(architecture(model))
    config = FinetuneConfig(model=model, dtype="bfloat16")
    assert not layers_alike(Step(config, stranger, CARDS["T4"]))


@pytest.mark.parametrize(("family", "told"), [("nonsense", "nonsense"), ("bloom", "eager")])
def test_a_model_that_transformers_cannot_build_is_refused_in_three_parts(family, told, tmp_path):
    config = FinetuneConfig(model=write_shape(tmp_path, model_type=family))
    with pytest.raises(CourseError, match=told):
        simulate_memory(config)


def test_flash_attention_of_an_unknown_family_is_simulated_too(tmp_path):
    model = write_shape(tmp_path, model_type="starcoder2", num_hidden_layers=4)
    config = FinetuneConfig(model=model, attention="flash_attention_2", max_length=64)
    assert simulate_memory(config, CARDS["A100 80GB"]).source == "simulated"
