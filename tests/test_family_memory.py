"""Where the bytes go in each family: arithmetic, simulation and a real step side by side."""

import json

import pytest
from test_families import PUBLISHED, smaller

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.simulate import simulate_memory

RUNS = {
    "full, no checkpointing": {"method": "full", "gradient_checkpointing": False},
    "qlora": {},
}
each_model = pytest.mark.parametrize("name", PUBLISHED)


def config_of(name, folder, values=None, **run):
    """Return a run of a model that is only a config.json."""
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in (values or PUBLISHED[name]).items() if v is not None})
    )
    attention = "eager" if name == "gemma-2-2b" else "sdpa"
    return FinetuneConfig(model=str(folder), attention=attention, **run)


@each_model
@pytest.mark.parametrize("run", RUNS)
def test_the_three_verbs_agree_on_a_small_model_of_each_family(name, run, tmp_path):
    values = smaller(PUBLISHED[name])
    sizes = {"batch_size": 8, "max_length": 128, "dtype": "bfloat16"}
    config = config_of(name, tmp_path, values, **sizes, **RUNS[run])
    predicted, simulated = predict_memory(config), simulate_memory(config)
    measured = measure_memory(config)
    assert predicted.weights == simulated.weights == measured.weights
    assert predicted.optimizer == measured.optimizer
    assert simulated.allocated == pytest.approx(measured.allocated, rel=0.005)
    assert predicted.allocated == pytest.approx(measured.allocated, rel=0.015)


@each_model
def test_arithmetic_and_simulation_agree_on_the_published_model(name, tmp_path):
    run = {"method": "lora", "batch_size": 2, "gradient_checkpointing": False}
    config = config_of(name, tmp_path, **run)
    card = CARDS["A100 80GB"]
    predicted, simulated = predict_memory(config, card), simulate_memory(config, card)
    assert predicted.weights == simulated.weights
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.005)


def test_a_mixture_in_float32_cannot_be_simulated_and_says_so(tmp_path):
    config = config_of("Mixtral-8x7B", tmp_path, dtype="float32")
    with pytest.raises(CourseError, match="bfloat16"):
        simulate_memory(config, CARDS["A100 80GB"])


def test_gradients_of_a_function_that_autocast_widens_are_in_fp32(tmp_path):
    config = config_of("gpt2", tmp_path, smaller(PUBLISHED["gpt2"]), method="full", max_length=256)
    card = CARDS["A100 80GB"]
    predicted, simulated = predict_memory(config, card), simulate_memory(config, card)
    assert predicted.moment.endswith("layer's backward pass")
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.005)


@pytest.mark.parametrize("card", ["T4", "A100 80GB"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_window_over_the_tokens_needs_a_mask_and_repeated_keys(card, checkpointing, tmp_path):
    values = smaller(PUBLISHED["Mistral-7B-v0.3"]) | {"sliding_window": 256}
    run = {"method": "lora", "max_length": 512, "gradient_checkpointing": checkpointing}
    config = config_of("Mistral-7B-v0.3", tmp_path, values, **run)
    predicted, simulated = (verb(config, CARDS[card]) for verb in (predict_memory, simulate_memory))
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.002)


@pytest.mark.parametrize("name", ["gpt2", "pythia-1b", "phi-1_5"])
def test_8_bit_modules_keep_the_fp32_that_a_gpu_gives_them_beside_layer_norm(name, tmp_path):
    values = smaller(PUBLISHED[name])
    config = config_of(name, tmp_path, values, bits=8, gradient_checkpointing=False)
    card = CARDS["A100 80GB"]
    predicted, simulated = (verb(config, card) for verb in (predict_memory, simulate_memory))
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.02)


def test_the_norm_of_many_wide_queries_can_be_the_widest_moment(tmp_path):
    values = smaller(PUBLISHED["Qwen3-0.6B"]) | {"head_dim": 128}
    config = config_of("Qwen3-0.6B", tmp_path, values, method="lora", max_length=256)
    card = CARDS["A100 80GB"]
    predicted, simulated = (verb(config, card) for verb in (predict_memory, simulate_memory))
    assert predicted.allocated == pytest.approx(simulated.allocated, rel=0.01)
