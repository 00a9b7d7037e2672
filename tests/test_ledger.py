from dataclasses import replace

import pytest

from ftcourse.memory import PARTS
from ftcourse.memory.ledger import History, Ledger, Row

WEIGHT = Row("model.norm.weight", (8,), "float32", "weights", 32)
OUTPUT = Row("model.layers.*.mlp", (4, 8), "bfloat16", "activations", 64, count=3)


@pytest.fixture
def history():
    """Return two phases: a weight, three outputs and one of the loss; then a gradient alone."""
    history = History()
    history.born(WEIGHT)
    history.mark("forward")
    first = history.born(OUTPUT)
    loss = history.born(replace(OUTPUT, name="loss", bytes=1000, count=1))
    history.died(loss)
    history.mark("backward")
    history.died(first)
    history.born(replace(WEIGHT, part="gradients"))
    return history


def test_equal_tensors_are_one_row_and_the_largest_sum_stands_first():
    ledger = Ledger.of([WEIGHT, OUTPUT, WEIGHT, replace(WEIGHT, part="gradients", bytes=100)])
    assert ledger == (
        OUTPUT,
        replace(WEIGHT, part="gradients", bytes=100),
        replace(WEIGHT, count=2),
    )


def test_rows_that_cancel_out_are_left_out():
    assert Ledger.of([OUTPUT, WEIGHT, replace(OUTPUT, count=-3)]) == (WEIGHT,)


def test_the_parts_of_a_ledger_are_bytes_times_count_and_always_five():
    parts = Ledger.of([WEIGHT, OUTPUT]).parts
    assert tuple(parts) == PARTS
    assert parts == dict.fromkeys(PARTS, 0) | {"weights": 32, "activations": 192}


def test_the_table_shows_each_row_and_the_sum():
    lines = repr(Ledger.of([WEIGHT, OUTPUT])).splitlines()
    assert lines[1].split(maxsplit=3) == [
        "192",
        "3",
        "activations",
        "bfloat16  4 x 8  model.layers.*.mlp",
    ]
    assert lines[-1].split() == ["224", "in", "all"]


def test_a_history_knows_what_lives_after_each_event(history):
    live = [sum(parts.values()) for parts in history.timeline()]
    assert live == [32, 224, 1224, 224, 32, 64]
    assert history.timeline()[-1]["gradients"] == 32
    assert history.ledger(1) == (OUTPUT, WEIGHT)
    raised = history.timeline(below=[WEIGHT, OUTPUT])  # the history begins with the weight
    assert [sum(parts.values()) for parts in raised] == [size + 224 for size in live]


def test_each_stretch_has_its_peak_and_the_fullest_moment_is_one_of_them(history):
    peaks = history.peaks()
    assert {name: sum(ledger.parts.values()) for name, ledger in peaks.items()} == {
        "forward": 1224,
        "backward": 64,
    }
    assert history.fullest() == ("forward", 2)
    assert history.ledger(2) == peaks["forward"]


def test_a_name_may_come_again_and_what_has_no_name_is_not_looked_at(history):
    history.mark("")
    giant = history.born(replace(WEIGHT, bytes=10**6))
    history.died(giant)
    history.mark("forward")
    history.born(replace(WEIGHT, bytes=2000))
    assert list(history.peaks()) == ["forward", "backward"]
    assert sum(history.peaks()["forward"].parts.values()) == 2064
    assert history.fullest() == ("forward", 8)
