import pytest
from test_memory import RUNS, config_and_measurement, write_shape

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, detect
from ftcourse.memory import predict_memory
from ftcourse.shape import load_shape
from ftcourse.simulate import extend, simulate_memory, trace
from ftcourse.step import Step

FAKEABLE = [
    name
    for name, run in RUNS.items()
    if run.get("bits") != 8 and "8bit" not in run.get("optimizer", "")
]


@pytest.mark.parametrize("name", FAKEABLE)
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
    for moment, parts in seven.items():
        assert sum(extend(two[moment], three[moment], 7).values()) == sum(parts.values())


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
    "run", [{"bits": 8}, {"optimizer": "paged_adamw_8bit"}, {"attention": "flash_attention_2"}]
)
def test_what_fake_tensors_cannot_follow_is_refused(run):
    with pytest.raises(CourseError, match=next(iter(run))):
        simulate_memory(FinetuneConfig(model="smollm2-135m", **run))
