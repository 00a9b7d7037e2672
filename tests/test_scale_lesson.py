"""Lesson 09: wrong answers to its exercises, each with its question, its panel and pictures."""

from dataclasses import replace
from math import ceil

import pytest

from ftcourse import check
from ftcourse.check.scale import KEPT, balance, fewest
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import judge_fit
from ftcourse.memory.sharding import communication
from ftcourse.plots.scale import plot_cards, plot_held, plot_seconds
from ftcourse.scale import Seconds, cheapest_way
from ftcourse.widgets.scale import scale_panel

SHARE = balance()[1] / balance()[0]
BALANCE = ceil(SHARE)
WRONG = {
    "doubt_in_the_table": ("seeds", "both", "the questions and the seeds", 179),
    "kettle": ("as many", "more", "none at all", 3),
    "gb_on_each_of_four": (
        112, 7, 14, 21, 28e9 / 2**30, 28e9, 448, 16, 100, 1, "28",
    ),
    "texts_to_balance": (
        SHARE, BALANCE - 1, BALANCE + 1, 1, 1 / SHARE, 2 * BALANCE, 512 * BALANCE, 100, 0.01, "3",
    ),
}  # fmt: skip
RIGHT = {
    "doubt_in_the_table": "Question.",
    "kettle": "fewer",
    "gb_on_each_of_four": 28,
    "texts_to_balance": BALANCE,
}


@pytest.mark.parametrize("name", RIGHT)
def test_each_wrong_answer_gets_a_question_of_its_own(name):
    judge = getattr(check, name)
    assert judge(RIGHT[name])
    verdicts = [judge(answer) for answer in WRONG[name]]
    assert not any(verdicts)
    assert len({verdict.says for verdict in verdicts}) == len(verdicts)


def held(rows, columns, world_size, process):
    """Return how many numbers of a matrix torch's own cut gives to a process."""
    import torch

    parts = torch.zeros(rows, columns).chunk(world_size)
    return parts[process].numel() if process < len(parts) else 0


WRONG_HELD = {
    "With padding": lambda r, c, n, k: ceil(r / n) * c,
    "who holds the row": lambda r, c, n, k: r // n * c,
    "goes to the first ones": lambda r, c, n, k: (r // n + (k < r % n)) * c,
    "goes to the last one": lambda r, c, n, k: (r // n + (r % n if k == n - 1 else 0)) * c,
    "Fewer than no rows": lambda r, c, n, k: min(ceil(r / n), r - k * ceil(r / n)) * c,
    "by its rows, or by its columns": lambda r, c, n, k: held(c, r, n, k),
    "How many numbers has a row": lambda r, c, n, k: held(r, 1, n, k),
    "cut in the middle": lambda r, c, n, k: held(r * c, 1, n, k),
    "number 0, or 1": lambda r, c, n, k: held(r, c, n, k - 1) if k else ceil(r / n) * c,
    "a fraction of a number": lambda r, c, n, k: r * c / n,
    "Are these bytes": lambda r, c, n, k: 4 * held(r, c, n, k),
    "Where do they part": lambda r, c, n, k: 7,
    "four numbers": lambda r, c: r * c,
    "returned None": lambda r, c, n, k: None,
    "shape": lambda r, c, n, k: [held(r, c, n, k)] * 2,
}


@pytest.mark.parametrize("asks", WRONG_HELD)
def test_a_wrong_function_gets_a_question_of_its_own(asks):
    verdict = check.numbers_held(WRONG_HELD[asks])
    assert not verdict
    assert asks in verdict.says


def test_the_right_function_cuts_as_torch_does():
    assert check.numbers_held(held)


def test_no_answer_and_odd_answers_never_raise():
    for name in [*RIGHT, "numbers_held", "seventy_on_small_cards"]:
        for answer in (..., None, [1], float("nan"), object(), lambda: 1, "", {}, True, 1e400):
            assert not getattr(check, name)(answer)


def test_three_hints_and_a_solution_that_passes():
    for name in [*RIGHT, "numbers_held", "seventy_on_small_cards"]:
        assert len({check.hint(name, number) for number in (1, 2, 3)}) == 3
        scope = {}
        exec(check.solution(name), scope)
        assert getattr(check, name)(scope["mine"])


# --- the panel ------------------------------------------------------------------------------------


@pytest.fixture
def solved():
    panel = scale_panel()
    for name, value in (KEPT | {"sharding": "fsdp", "loss": "chunked", "GPUs": fewest()}).items():
        panel.controls[name].value = value
    assert check.seventy_on_small_cards(panel)
    return panel


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({"sharding": "ddp"}, "Which sharding does not"),
        ({"loss": "full"}, "scores of all words"),
        ({"GPUs": 2}, "Who could hold another part"),
        ({"GPUs": 8}, "fewer GPUs"),
        ({"model": "llama-3.1-8b"}, "model is llama-3.1-8b"),
        ({"method": "lora"}, "method is lora"),
        ({"card": "A100 80GB"}, "card is A100 80GB"),
        ({"length": 512}, "length is 512"),
        ({"texts": 2}, "texts is 2"),
    ],
)
def test_a_panel_that_misses_the_target_is_asked_for_what_is_in_the_way(solved, changes, asks):
    for name, value in changes.items():
        solved.controls[name].value = value
    verdict = check.seventy_on_small_cards(solved)
    assert not verdict
    assert asks in verdict.says


def test_the_first_control_changes_text_and_picture():
    panel = scale_panel()
    before, picture = panel.text, panel._view.value
    panel.controls["GPUs"].value = 8
    assert panel.text != before
    assert panel._view.value.partition("base64")[2] != picture.partition("base64")[2]
    assert "GPUs 2 to 8" in panel.moved


def test_the_panel_says_what_the_arithmetic_says():
    panel = scale_panel("llama-3.1-8b", "A100 40GB", GPUs=2, sharding="fsdp", length=1024)
    card, run = CARDS["A100 40GB"], FinetuneConfig("llama-3.1-8b", "full", batch_size=1)
    run = replace(run, max_length=1024)
    assert repr(judge_fit(predict_memory(run, card, 2, "fsdp"), card)) in panel.text
    sent = communication(run, 2, "fsdp", card=card).bytes_per_step
    assert f"{sent / 1e9:,.2f} GB a step" in panel.text
    assert cheapest_way(run, card, 2, "fsdp").what in panel.text


def test_no_menu_of_the_panel_is_without_a_value_and_none_is_nothing():
    for control in scale_panel().controls.values():
        assert control.value is not None
        assert None not in [p[1] if isinstance(p, tuple) else p for p in control.options]


# --- the pictures ---------------------------------------------------------------------------------


def test_the_drawing_says_who_holds_what():
    assert "FSDP each process holds one half" in plot_held().alt


def test_bars_of_several_cards_have_all_bytes_in_words_and_the_chosen_one_is_marked():
    run = FinetuneConfig("llama-3.1-8b", "qlora", dtype="bfloat16", batch_size=1)
    card = CARDS["RTX 4090"]
    steps = {n: predict_memory(run, card, n, "fsdp") for n in (1, 2)}
    picture = plot_cards(steps, card, 2)
    assert [label.get_text() for label in picture.get_yticklabels()] == ["1 GPU", "▸ 2 GPUs"]
    for step in steps.values():
        assert f": {step.allocated / 2**30:.2f} GiB (" in picture.alt


def test_the_picture_of_seconds_says_which_is_longer():
    picture = plot_seconds({"fast": Seconds(2.0, 0.5), "slow": Seconds(2.0, 13.0)})
    assert "Sending takes longer in 1 of 2 rows." in picture.alt
    assert "computes 2 s, sends 0.5 (fast), 13 (slow)." in picture.alt


# --- what the lesson says -------------------------------------------------------------------------


def test_two_cards_hold_no_less_each_than_one_in_a_full_fine_tune_in_16_bits():
    """FSDP keeps what is trained in float32, and one card alone keeps it in bfloat16."""
    run = FinetuneConfig("llama-3.1-8b", "full", dtype="bfloat16", batch_size=1, max_length=1024)
    one, two = (predict_memory(run, CARDS["A100 80GB"], n, "fsdp").allocated for n in (1, 2))
    assert 0.98 * one < two < 1.1 * one


def test_a_long_text_is_not_divided_and_the_loss_in_chunks_makes_it_fit_one_card():
    run = FinetuneConfig("llama-3.1-8b", "qlora", dtype="bfloat16", batch_size=1)
    run, card = replace(run, max_length=65_536), CARDS["A100 80GB"]
    one, eight = (predict_memory(run, card, n, "fsdp") for n in (1, 8))
    assert judge_fit(eight, card).answer == "no"
    assert eight.allocated > 0.9 * one.allocated
    assert eight.activations == one.activations
    assert judge_fit(predict_memory(replace(run, loss="chunked"), card), card).answer == "yes"


@pytest.mark.parametrize(("count", "answer"), [(2, "no"), (4, "yes"), (8, "yes")])
def test_a_70b_fits_four_cards_of_24_gb_and_not_two(count, answer):
    run = FinetuneConfig("llama-3.1-70b", "qlora", batch_size=1, max_length=2048, loss="chunked")
    card = CARDS["RTX 4090"]
    assert judge_fit(predict_memory(run, card, count, "fsdp"), card).answer == answer
