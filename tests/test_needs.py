"""Needs: which columns they make count, and what is no need."""

from math import inf

import pytest

from ftcourse.errors import CourseError
from ftcourse.needs import NEEDED, Needs, needed
from ftcourse.which_one import COLUMNS


@pytest.mark.parametrize(
    "wrong",
    [
        {"voice": "loud"},
        {"changes": None},
        {"hours": -1},
        {"latency": "50"},
        {"latency": None},
        {"pages": True},
    ],
)
def test_wrong_needs_are_refused(wrong):
    with pytest.raises(CourseError):
        Needs(**wrong)


def test_each_need_names_columns_that_the_table_has():
    assert {*NEEDED} < {*vars(Needs())}
    for choices in NEEDED.values():
        assert all({*columns} <= {*COLUMNS} for columns in choices.values())


def test_a_stricter_choice_has_all_columns_of_the_milder_and_no_milder_limit():
    for need, choices in NEEDED.items():
        mild, *stricter = choices.values()
        for strict in stricter:
            assert mild.keys() <= strict.keys(), need
            for column, limit in mild.items():
                if limit is not None:
                    sign = 1 if COLUMNS[column].better == "more" else -1
                    assert sign * strict[column] >= sign * limit
            mild = strict


def test_a_limit_on_answers_counts_first_and_a_change_last():
    costs = [c for c in needed(Needs(changes="daily", latency=50)) if COLUMNS[c].unit != "%"]
    assert costs == ["ms a question", "training seconds", "seconds, forty facts"]
    costs = [c for c in needed(Needs(changes="daily")) if COLUMNS[c].unit != "%"]
    assert costs == ["training seconds", "ms a question", "seconds, forty facts"]
    costs = [c for c in needed(Needs()) if COLUMNS[c].unit != "%"]
    assert costs == ["training seconds", "ms a question"]
    assert needed(Needs(hours=2))["training seconds"] == ("hours", 7200)
    assert needed(Needs(hours=0))["training seconds"] == ("hours", 0)
    assert needed(Needs(hours=inf))["training seconds"] == ("hours", inf)
