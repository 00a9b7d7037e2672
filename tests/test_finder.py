import pytest
import torch

from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.errors import CourseError
from ftcourse.finder import find_learning_rate, smooth
from ftcourse.models import load_base
from ftcourse.sweeps import load_sweep, over_seeds, select

LETTERS = load_dialogues("train")[:64]


def config_of(method, **changes):
    choices = {"method": method, "rank": 8, "alpha": 16, "batch_size": 4, "dtype": "float32"}
    return FinetuneConfig(**choices | {"gradient_checkpointing": False} | changes)


def steepest(rates, losses):
    """The rule in other words: of the steps after the first ten, the one with the largest fall."""
    means = smooth(losses)
    return rates[max(range(11, len(means)), key=lambda step: means[step - 1] - means[step])]


@pytest.fixture(scope="module")
def found():
    return find_learning_rate(config_of("full"), LETTERS)


def test_rates_rise_by_one_factor_and_losses_fall_and_then_rise(found):
    factors = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert factors == pytest.approx([factors[0]] * len(factors))
    assert found.rates[0] == pytest.approx(1e-6)
    lowest = found.smoothed.index(min(found.smoothed))
    assert found.smoothed[0] > 2 * min(found.smoothed)
    assert found.smoothed[-1] > 1.5 * min(found.smoothed)
    assert 0 < lowest < len(found.rates) - 1
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 60  # it stopped


def test_the_suggestion_is_the_rate_at_which_the_loss_falls_most(found):
    assert found.suggestion == steepest(found.rates, found.losses)
    assert f"{found.suggestion:.1e}" in repr(found)


def test_the_search_leaves_the_model_and_the_random_numbers_as_they_were():
    before = load_base(config_of("full")).state_dict()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    find_learning_rate(config_of("lora"), LETTERS[:8], steps=20)
    assert torch.equal(torch.rand(3), expected)
    after = load_base(config_of("full")).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_same_seed_finds_the_same_and_accumulated_batches_the_same_as_large_ones():
    one = find_learning_rate(config_of("lora"), LETTERS[:4], steps=20)
    assert find_learning_rate(config_of("lora"), LETTERS[:4], steps=20) == one
    config = config_of("lora", batch_size=8)
    parts = config_of("lora", batch_size=4, gradient_accumulation_steps=2)
    large = find_learning_rate(config, [LETTERS[0]] * 8, steps=20)
    small = find_learning_rate(parts, [LETTERS[0]] * 8, steps=20)
    assert small.losses == pytest.approx(large.losses, rel=1e-4)


def test_rates_that_are_all_too_high_are_refused():
    with pytest.raises(CourseError, match="does not fall"):
        find_learning_rate(config_of("full"), LETTERS, lowest=0.5, highest=10, steps=20)


def test_the_running_mean_of_equal_losses_is_that_loss():
    assert smooth([2.0] * 5) == pytest.approx([2.0] * 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lowest": 0},
        {"lowest": -1},
        {"lowest": 1, "highest": 1},
        {"highest": float("inf")},
        {"highest": float("nan")},
        {"highest": "1"},
        {"steps": 19},
        {"steps": 20.5},
        {"steps": True},
    ],
    ids=str,
)
def test_a_range_that_does_not_rise_is_refused(wrong):
    with pytest.raises(CourseError, match="range test"):
        find_learning_rate(config_of("lora"), LETTERS, **wrong)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_recorded_suggestions_are_near_the_best_rate_of_the_recorded_sweep(method):
    runs = [run for run in load_sweep("finder") if run["method"] == method]
    trained = select(runs, task="train")
    first = {run["rate"]: run["validation_loss"] for run in select(trained, seed=0)}
    judged = over_seeds(trained, "rate", "validation_loss")
    means = {rate: mean.mean for rate, mean in judged.items() if len(mean.values) == 3}
    best = min(means, key=means.get)
    assert min(first, key=first.get) in means  # the others were measured with one seed only
    assert min(first) < best < max(first)
    searches = select(runs, task="search")
    assert len(searches) == 3
    for run in searches:
        assert best / 3 < steepest(run["rates"], run["losses"]) < best * 3
