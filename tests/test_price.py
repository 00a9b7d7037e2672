import re
from dataclasses import replace

import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import cheapest_change, judge_fit, smaller_changes
from ftcourse.memory.price import Price, Prices, prices, prices_to_fit
from ftcourse.sweeps import load_sweep, over_seeds, select

T4 = CARDS["T4"]
LARGE = FinetuneConfig(model="llama-3.1-8b", method="lora", gradient_checkpointing=False)
FULL = FinetuneConfig(method="full", gradient_checkpointing=False, batch_size=6)


def price_of(config, *names):
    return next(price for price in prices(config, T4) if tuple(price.change) == names)


def allocated(config):
    return predict_memory(config, T4).allocated


RECIPE = FinetuneConfig(model="llama-3.1-8b", upcast=True)


@pytest.mark.parametrize(
    "config", [FULL, LARGE, FinetuneConfig(), replace(LARGE, loss="chunked"), RECIPE]
)
def test_each_price_is_that_of_one_change_of_the_cheapest_change_in_its_order(config):
    found = prices(config, T4)
    changing = [c for c in smaller_changes(config) if replace(config, **c) != config]
    assert [price.change for price in found] == changing
    for price in found:
        after = replace(config, **price.change)
        assert price.saved == allocated(config) - allocated(after)
        assert price.answer == judge_fit(predict_memory(after, T4), T4).answer
        assert price.time
        assert price.quality


def test_to_leave_out_the_casts_has_a_price():
    price = price_of(RECIPE, "upcast")
    assert price.saved > 2**30
    assert "for stability" in price.quality
    assert not any("upcast" in p.change for p in prices(replace(RECIPE, upcast=False), T4))


def test_what_a_run_has_already_has_no_price():
    run = FinetuneConfig(loss="chunked", batch_size=1, optimizer="sgd", max_length=128)
    assert prices(run, T4) == ()
    assert repr(prices(run, T4)).startswith("Nothing to pay for")


@pytest.mark.parametrize(
    "config", [LARGE, replace(LARGE, method="full"), FinetuneConfig(model="llama-3.1-8b", bits=8)]
)
def test_the_price_of_fitting_is_that_of_the_cheapest_change_and_adds_up(config):
    bill = prices_to_fit(config, T4)
    after = config
    for price in bill:
        after = replace(after, **price.change)
    assert after == cheapest_change(config, T4) != config
    assert sum(price.saved for price in bill) == allocated(config) - allocated(after)
    assert bill[-1].answer == "yes"
    assert all(price.answer != "yes" for price in bill[:-1])


def test_a_run_that_fits_and_one_that_never_will_have_nothing_to_pay():
    assert prices_to_fit(FinetuneConfig(), T4) == ()
    assert prices_to_fit(FinetuneConfig(model="llama-3.1-70b"), T4) == ()


def test_checkpointing_costs_a_third_of_a_full_step_and_half_of_an_adapters_but_for_the_head():
    """Forward, and backward once for the inputs and in a full fine-tune once for the weights."""
    shares = {}
    for method in ("full", "lora"):
        run = FinetuneConfig(model="llama-3.1-8b", method=method, gradient_checkpointing=False)
        time = price_of(run, "gradient_checkpointing").time
        shares[method] = int(re.search(r"about (\d+) % more", time)[1])
    assert 30 <= shares["full"] <= 33
    assert 45 <= shares["lora"] <= 50
    less = price_of(replace(run, method="full"), "method").time
    assert less == "about 33 % fewer multiplications"


def test_the_words_have_the_figures_of_the_recorded_sweeps():
    runs = [run for run in load_sweep("lora") if "steps" not in run and run["task"] == "voice"]
    kept = select(runs, rank=16, learning_rate=0.005, targets="all-linear", method="lora")
    voice = over_seeds(kept, "rank", "voice")[16]
    assert len(voice.values) == 3
    words = price_of(FULL, "method").quality
    assert f"LoRA of rank 16 voice {voice.mean:.0f} %" in words
    (nf4,) = select(load_sweep("quantize"), scheme="normal", bits=4, block=64, part="all")
    (plain,) = select(load_sweep("quantize"), scheme="none")
    words = price_of(FULL, "method", "bits").quality
    assert f"answers {nf4['right']} of {nf4['count']} with NF4, {plain['right']} without" in words


def test_a_change_may_cost_bytes_and_says_so():
    """Batches that are summed up keep the gradients while the next one runs."""
    run = FinetuneConfig(model="llama-3.1-8b", method="full")
    price = price_of(run, "batch_size", "gradient_accumulation_steps")
    assert price.saved < 0
    assert f"{price.saved / 2**30:.2f} GiB" in repr(price)


@pytest.mark.parametrize("config", [FULL, LARGE, FinetuneConfig(model="llama-3.1-8b", bits=8)])
def test_the_table_is_at_most_80_columns_wide_and_has_every_word(config):
    found = prices(config, T4)
    table = repr(found)
    assert max(map(len, table.splitlines())) <= 80
    plain = " ".join(table.split())
    for price in found:
        assert f"time: {price.time}" in plain
        assert f"quality: {price.quality}" in plain
    assert isinstance(found, Prices)
    assert isinstance(found[0], Price)
