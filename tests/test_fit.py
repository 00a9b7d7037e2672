import json
import re
import statistics
from dataclasses import replace

import pytest
from cases import some_of

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.hardware import CARDS, GIB, Card
from ftcourse.memory import MemoryBreakdown, Step, predict_memory, predict_step
from ftcourse.memory.fit import (
    CONTEXT_BYTES,
    GAPS,
    GROWING_FIELDS,
    LIBRARY_BYTES,
    SEARCH_END,
    cheapest_change,
    difference,
    does_not_fit,
    judge_fit,
    largest,
    refuse_if_too_large,
)
from ftcourse.memory.records import recorded_runs
from ftcourse.shape import ModelShape

T4 = CARDS["T4"]
SMALL = FinetuneConfig(model="embedded", rank=8)
METHODS = [
    {"method": "full"},
    {"method": "qlora", "upcast": True},
    {"method": "lora", "optimizer": "paged_adamw_8bit", "target_modules": ("q_proj",)},
    {"method": "lora", "gradient_checkpointing": False, "attention": "eager"},
    {"method": "full", "loss": "chunked", "optimizer": "adamw_torch"},
]
each_method = pytest.mark.parametrize("choices", METHODS, ids=str)


def bytes_of(config, field, value):
    return predict_memory(replace(config, **{field: value}), T4).allocated


def answer(config, card=T4):
    return judge_fit(predict_memory(config, card), card).answer


def tensors(size):
    return MemoryBreakdown(size, 0, 0, 0, 0, source="predicted")


def test_the_margin_for_gaps_covers_three_of_four_published_runs_and_no_more_than_that():
    runs = [run for run in recorded_runs() if run.by == "fitcheck"]
    gaps = [run.reserved / run.allocated - 1 for run in runs]
    covered = [sum(gap <= share for gap in gaps) / len(runs) for share in (GAPS - 0.01, GAPS)]
    assert covered[0] < 0.75 <= covered[1]
    assert statistics.median(gaps) == pytest.approx(0.12, abs=0.005)
    assert max(gaps) == pytest.approx(0.49, abs=0.005)
    high = [run.config.attention for run, gap in zip(runs, gaps, strict=True) if gap > 0.26]
    assert set(high) == {"eager"}


def test_published_runs_that_nearly_fill_a_t4_end_as_the_answer_says():
    rooms = {True: [], False: []}
    for text in (
        (course_path("data/measured") / "published_t4_limits.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ):
        line = json.loads(text)
        shape = ModelShape.from_config(line["shape"])
        step = predict_step(Step(FinetuneConfig(**line["config"]), shape, T4, **line["loop"]))
        rooms[line["completed"]].append((T4.memory - T4.context) / step.allocated - 1)
        assert judge_fit(step, T4).answer != ("no" if line["completed"] else "yes")
    assert (len(rooms[True]), len(rooms[False])) == (8, 4)
    assert max(rooms[False]) < 0.11
    assert min(rooms[True]) > 0.17


@pytest.mark.parametrize(
    ("card", "fixed", "margin"),
    [
        (Card("T4", 14 * GIB, (7, 5), context=GIB), GIB, GAPS),
        (Card("GPU", 14 * GIB, (8, 0)), CONTEXT_BYTES, GAPS),
        (Card("CPU", 14 * GIB), 0, None),
    ],
)
def test_the_answer_changes_where_context_and_margin_no_longer_fit(card, fixed, margin):
    full = card.memory - fixed
    sure = full - LIBRARY_BYTES if margin is None else int(full / (1 + margin))
    sizes = (sure - 2, sure + 2, full, full + 1)  # the margin is rounded
    answers = [judge_fit(tensors(size), card).answer for size in sizes]
    assert answers == ["yes", "narrowly", "narrowly", "no"]


def test_each_answer_names_the_bytes_that_decide_it():
    card = Card("T4", 14 * GIB, (7, 5), context=GIB)
    says = [repr(judge_fit(tensors(size * GIB), card)) for size in (5, 11, 15)]
    assert says == [
        "Fits the T4 with 6.95 GiB to spare: 5.00 GiB of tensors and 1.00 GiB of CUDA context, "
        "with 1.05 GiB allowed for gaps between tensors; largest part: weights.",
        "Fits the T4 narrowly and may fail: 11.00 GiB of tensors and 1.00 GiB of CUDA context "
        "leave 2.00 GiB, and gaps between tensors may take 2.31 GiB; largest part: weights.",
        "Does not fit the T4: 15.00 GiB of tensors and 1.00 GiB of CUDA context are 2.00 GiB over; "
        "largest part: weights.",
    ]


def test_a_context_that_nobody_measured_is_called_about_so_large():
    assert "about 0.50 GiB of CUDA context" in judge_fit(tensors(GIB), CARDS["L4"]).reason
    assert "and 0.14 GiB of CUDA context" in judge_fit(tensors(GIB), T4).reason


@pytest.mark.parametrize(("size", "unit"), [(GIB, "GiB"), (14 * GIB, "GiB"), (GIB - 1, "MiB")])
@pytest.mark.parametrize("card", [T4, Card("CPU", 8 * GIB)], ids=lambda card: card.name)
def test_the_numbers_of_a_sentence_share_one_unit(size, unit, card):
    assert set(re.findall("[GM]iB", repr(judge_fit(tensors(size), card)))) == {unit}


def test_a_cpu_needs_room_for_python_and_has_neither_context_nor_gaps():
    assert repr(judge_fit(tensors(4 * GIB), Card("CPU", 8 * GIB))) == (
        "Fits the CPU with 3.00 GiB to spare: 4.00 GiB of tensors, "
        "with 1.00 GiB allowed for Python and its libraries; largest part: weights."
    )


def test_only_a_run_that_surely_does_not_fit_is_refused_before_it_is_loaded(tmp_path):
    config = FinetuneConfig(model="llama-3.1-8b", max_length=1024)
    assert answer(config) == "narrowly"
    refuse_if_too_large(config, T4)
    with pytest.raises(CourseError, match=r"are 5\.24 GiB over") as caught:
        refuse_if_too_large(replace(config, max_length=2048), T4)
    assert "Try loss='chunked'" in caught.value.do
    (tmp_path / "config.json").write_text(
        '{"model_type": "starcoder2"}', encoding="utf-8"
    )  # which may fit
    refuse_if_too_large(FinetuneConfig(model=str(tmp_path)), Card("tiny", 1, (7, 5)))


@each_method
@pytest.mark.parametrize("field", ["max_length", "batch_size"])
def test_more_tokens_never_take_fewer_bytes(field, choices):
    config = replace(SMALL, **choices)
    sizes = [bytes_of(config, field, value) for value in [*range(1, 40), *range(40, 3000, 113)]]
    assert sizes == sorted(sizes)


GROWN = [
    (field, choices)
    for field in GROWING_FIELDS
    for choices in METHODS
    if (field, choices["method"]) != ("rank", "full")  # which has no adapter
]


@pytest.mark.parametrize("case", some_of(GROWN, GROWN[::3]), ids=str)
def test_the_largest_value_that_fits_is_that_of_trying_them_all(case):
    field, choices = case
    config = replace(SMALL, **choices)
    steps = [predict_memory(replace(config, **{field: value}), T4) for value in range(1, 41)]
    for step in steps[1::8]:
        edge = round((1 + GAPS) * step.allocated) + T4.context
        for capacity in (edge - 2, edge + 2):
            card = replace(T4, memory=capacity)
            fits = [n for n, step in enumerate(steps, 1) if judge_fit(step, card).answer == "yes"]
            if fits[-1] < 40:
                assert largest(config, field, capacity, T4) == fits[-1]


@pytest.mark.parametrize(
    ("model", "optimizer", "falls"),
    [
        ("embedded", "adamw_8bit", [11, 32]),  # at 11 x 384 and at 32 x 128 numbers
        ("qwen2.5-0.5b", "paged_adamw_8bit", [5, 21, 112]),
        ("qwen2.5-0.5b", "paged_adamw_32bit", [21, 112]),
    ],
)
def test_where_a_higher_rank_takes_fewer_bytes_the_highest_that_fits_is_still_found(
    model, optimizer, falls
):
    config = FinetuneConfig(model=model, optimizer=optimizer, batch_size=1, max_length=64)
    sizes = [bytes_of(config, "rank", rank) for rank in range(1, 129)]
    assert [n for n in range(2, 129) if sizes[n - 1] < sizes[n - 2]] == falls
    for rank in (n + more for n in falls for more in (-2, -1, 0)):
        capacity = round((1 + GAPS) * sizes[rank - 1]) + T4.context + 2
        fits = [n for n, size in enumerate(sizes, 1) if size <= sizes[rank - 1]]
        assert largest(config, "rank", capacity, T4) == fits[-1]


def test_what_fits_at_the_bound_is_answered_with_the_bound():
    one = replace(SMALL, batch_size=1)
    assert largest(one, "max_length", 2**60, T4) == SEARCH_END
    assert largest(one, "rank", 2**60, T4) == 128  # the hidden size
    assert largest(replace(one, target_modules="down_proj"), "rank", 2**60, T4) == 128


def test_without_a_card_the_arithmetic_is_for_the_machine_at_hand(monkeypatch):
    desk = Card("CPU", 2**40)
    monkeypatch.setattr("ftcourse.memory.fit.detect", lambda: desk)
    capacity = predict_memory(SMALL, desk).allocated + LIBRARY_BYTES
    assert largest(SMALL, "max_length", capacity) == SMALL.max_length
    desk = Card("CPU", 2**20)
    with pytest.raises(CourseError, match=r"memory, 1\.00 MiB"):
        refuse_if_too_large(SMALL)


def test_what_does_not_fit_even_at_1_is_answered_with_the_cheapest_change():
    config = FinetuneConfig(model="llama-3.1-8b", method="lora")
    with pytest.raises(CourseError) as caught:
        largest(config, "max_length", T4.memory, T4)
    assert "14.56 GiB" in caught.value.must
    assert caught.value.got.startswith("even with max_length=1: 15.")
    assert "Try method='qlora'" in caught.value.do
    with pytest.raises(CourseError, match="a smaller model or a larger card"):
        largest(config, "batch_size", 2**20, T4)


@pytest.mark.parametrize(
    ("field", "method"),
    [("gradient_accumulation_steps", "lora"), ("rank", "full"), ("size", "lora")],
)
def test_a_field_that_takes_no_memory_is_refused(field, method):
    with pytest.raises(CourseError, match="max_length, batch_size or, for an adapter, rank"):
        largest(replace(SMALL, method=method), field, T4.memory, T4)


def test_only_changes_that_are_needed_are_suggested():
    config = FinetuneConfig(model="llama-3.1-8b", method="lora", gradient_checkpointing=False)
    config = replace(config, batch_size=1, max_length=128)
    assert answer(config) == "no"
    assert cheapest_change(config, T4) == replace(config, method="qlora")


@pytest.mark.parametrize("batch", [6, 7, 8])
def test_a_smaller_batch_keeps_the_number_of_sequences_in_a_step(batch):
    config = FinetuneConfig(model="qwen2.5-0.5b", batch_size=batch, loss="chunked")
    size = max(n for n in range(1, batch) if batch % n == 0)
    smaller = replace(config, batch_size=size, gradient_accumulation_steps=batch // size)
    needs = round((1 + GAPS) * predict_memory(smaller, T4).allocated) + 1
    small = Card("small", needs + CONTEXT_BYTES, T4.capability)
    assert cheapest_change(config, small) == smaller


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor", "adamw_8bit", "paged_adamw_8bit"])
def test_an_optimizer_that_is_small_already_stays(optimizer):
    config = FinetuneConfig(model="llama-3.2-1b", method="full", optimizer=optimizer)
    changed = cheapest_change(config, Card("small", 8 * GIB, T4.capability))
    assert changed != config
    assert changed.optimizer == optimizer


def test_a_run_that_failed_though_it_was_predicted_to_fit_gets_a_change_that_needs_less():
    config = FinetuneConfig(model="qwen2.5-0.5b")
    assert answer(config) == "yes"
    need = predict_memory(config, T4).allocated
    assert predict_memory(cheapest_change(config, T4), T4).allocated < need


def test_a_suggestion_surely_fits_and_says_what_it_is_predicted_to_need():
    config = FinetuneConfig(model="llama-3.1-8b", max_length=1024)
    assert answer(config) == "narrowly"
    changed = cheapest_change(config, T4)
    assert answer(changed) == "yes"
    gib = predict_memory(changed, T4).allocated / GIB
    assert does_not_fit(config, T4).do.endswith(f": predicted to need {gib:.2f} GiB.")


def test_what_does_not_fit_is_answered_with_the_breakdown_and_a_change_that_fits():
    error = does_not_fit(FinetuneConfig(model="llama-3.1-8b", method="lora", max_length=1024), T4)
    assert "weights" in error.got
    assert "method='qlora'" in error.do


def test_where_nothing_fits_the_answer_is_a_smaller_model_or_a_larger_card():
    config = FinetuneConfig(model="llama-3.1-70b", method="full")
    assert cheapest_change(config, CARDS["RTX 3060"]) == config
    assert "smaller model" in does_not_fit(config, CARDS["RTX 3060"]).do


def test_a_difference_names_its_sign_and_the_part_to_blame():
    one = MemoryBreakdown(50 * 2**20, 0, 0, 50 * 2**20, 0, source="predicted")
    less = replace(one, weights=48 * 2**20, activations=51 * 2**20, source="measured")
    assert difference(less, one) == "measured: -1.0 % (weights -2.00 MiB)"
    same = replace(one, overhead=2**10, source="simulated")
    assert difference(same, one) == "simulated: the same within 0.1 %"
