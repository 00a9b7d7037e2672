from dataclasses import replace

import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import MemoryBreakdown, predict_memory
from ftcourse.memory.fit import FAR, KNOBS, cheapest_change, difference, does_not_fit, largest

T4 = CARDS["T4"]
SMALL = FinetuneConfig(model="embedded", rank=8)
METHODS = [
    {"method": "full"},
    {"method": "lora"},
    {"method": "qlora"},
    {"method": "qlora", "upcast": True},
    {"method": "qlora", "optimizer": "adamw_8bit"},
    {"method": "lora", "optimizer": "paged_adamw_8bit", "target_modules": ("q_proj",)},
    {"method": "lora", "gradient_checkpointing": False, "attention": "eager"},
    {"method": "full", "loss": "chunked", "optimizer": "adamw_torch"},
]
each_method = pytest.mark.parametrize("choices", METHODS, ids=str)


def bytes_of(config, knob, value):
    return predict_memory(replace(config, **{knob: value}), T4).allocated


@each_method
@pytest.mark.parametrize("knob", ["max_length", "batch_size"])
def test_more_tokens_never_take_fewer_bytes(knob, choices):
    config = replace(SMALL, **choices)
    sizes = [bytes_of(config, knob, value) for value in range(1, 200)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("knob", "choices"),
    [
        (knob, choices)
        for knob in KNOBS
        for choices in METHODS
        if (knob, choices["method"]) != ("rank", "full")  # which has no adapter
    ],
    ids=str,
)
def test_the_largest_value_that_fits_is_that_of_trying_them_all(knob, choices):
    config = replace(SMALL, **choices)
    sizes = {value: bytes_of(config, knob, value) for value in range(1, 41)}
    for capacity in [sizes[1], *(size + more for size in sizes.values() for more in (-1, 0))][3::7]:
        fits = [value for value, size in sizes.items() if size <= capacity]
        if fits[-1] < 40:
            assert largest(config, knob, capacity, T4) == fits[-1]


def test_an_8_bit_optimizer_makes_some_higher_ranks_cheaper():
    config = replace(SMALL, optimizer="adamw_8bit")
    sizes = [bytes_of(config, "rank", rank) for rank in range(1, 129)]
    assert sizes != sorted(sizes)  # so plain bisection would be wrong
    assert sizes[32:] == sorted(sizes[32:])  # from 32 x 128 numbers on


def test_what_fits_at_the_bound_is_answered_with_the_bound():
    one = replace(SMALL, batch_size=1)
    assert largest(one, "max_length", 2**60, T4) == FAR
    assert largest(one, "rank", 2**60, T4) == 128  # the hidden size
    assert largest(replace(one, target_modules="down_proj"), "rank", 2**60, T4) == 128


def test_the_question_is_answered_for_the_machine_at_hand_if_no_card_is_named():
    capacity = predict_memory(SMALL).allocated
    assert largest(SMALL, "max_length", capacity) == SMALL.max_length


def test_what_does_not_fit_even_at_1_is_answered_with_the_cheapest_change():
    config = FinetuneConfig(model="llama-3.1-8b", method="lora")
    with pytest.raises(CourseError) as caught:
        largest(config, "max_length", T4.memory, T4)
    assert "14.56 GiB" in caught.value.must
    assert caught.value.got.startswith("even with max_length=1 it needs about 1")
    assert "Try method='qlora'" in caught.value.do
    with pytest.raises(CourseError, match="a smaller model or a larger card"):
        largest(config, "batch_size", 2**20, T4)


@pytest.mark.parametrize(
    ("knob", "method"),
    [("gradient_accumulation_steps", "lora"), ("rank", "full"), ("size", "lora")],
)
def test_a_knob_that_takes_no_memory_is_refused(knob, method):
    with pytest.raises(CourseError, match="max_length, batch_size or, of an adapter, the rank"):
        largest(replace(SMALL, method=method), knob, T4.memory, T4)


def test_only_changes_that_are_needed_are_suggested():
    config = FinetuneConfig(model="llama-3.1-8b", method="lora", gradient_checkpointing=False)
    config = replace(config, batch_size=1, max_length=128)
    assert predict_memory(config, T4).allocated > T4.memory
    assert cheapest_change(config, T4) == replace(config, method="qlora")


@pytest.mark.parametrize("batch", [6, 7, 8])
def test_a_smaller_batch_keeps_the_number_of_sequences_in_a_step(batch):
    config = FinetuneConfig(model="qwen2.5-0.5b", batch_size=batch, loss="chunked")
    size = max(n for n in range(1, batch) if batch % n == 0)
    smaller = replace(config, batch_size=size, gradient_accumulation_steps=batch // size)
    need = predict_memory(smaller, T4).allocated
    assert cheapest_change(config, Card("small", need, T4.capability)) == smaller


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor", "adamw_8bit", "paged_adamw_8bit"])
def test_an_optimizer_that_is_small_already_stays(optimizer):
    config = FinetuneConfig(model="llama-3.2-1b", method="full", optimizer=optimizer)
    changed = cheapest_change(config, Card("small", 6 * 2**30, T4.capability))
    assert changed != config
    assert changed.optimizer == optimizer


def test_a_run_that_failed_though_it_was_predicted_to_fit_gets_a_change_that_needs_less():
    config = FinetuneConfig(model="qwen2.5-0.5b")
    need = predict_memory(config, T4).allocated
    assert need < T4.memory
    assert predict_memory(cheapest_change(config, T4), T4).allocated < need


def test_a_suggestion_says_what_it_is_predicted_to_need():
    config = FinetuneConfig(model="llama-3.1-8b", max_length=4096)
    changed = cheapest_change(config, T4)
    gib = predict_memory(changed, T4).allocated / 2**30
    assert does_not_fit(config, T4).do.endswith(f": predicted to need {gib:.2f} GiB.")


def test_a_difference_names_its_sign_and_the_part_to_blame():
    one = MemoryBreakdown(50 * 2**20, 0, 0, 50 * 2**20, 0, source="predicted")
    less = replace(one, weights=48 * 2**20, activations=51 * 2**20, source="measured")
    assert difference(less, one) == "measured: -1.0 % (weights -2.00 MiB)"
    same = replace(one, overhead=2**10, source="simulated")
    assert difference(same, one) == "simulated: the same within 0.1 %"
