import json
import sys
from pathlib import Path

import pytest

from ftcourse.memory import MemoryBreakdown
from ftcourse.simulate.cache import cache_folder, cached

FOUND = MemoryBreakdown(5, 4, 3, 2, 1, source="simulated", moment="the loss", device="Tesla T4")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counter:
    """Computes a breakdown and counts how often."""

    calls = 0

    def __call__(self):
        self.calls += 1
        return FOUND


def test_the_second_time_is_read_and_equal():
    compute = Counter()
    assert cached({"rank": 8}, compute) == cached({"rank": 8}, compute) == FOUND
    assert compute.calls == 1


def test_another_key_is_computed():
    compute = Counter()
    cached({"rank": 8}, compute)
    cached({"rank": 16}, compute)
    assert compute.calls == 2


@pytest.mark.parametrize(
    "damage", ["", '{"weights": 5', "[]", "{}", "null", '{"weights": "many"}', "\0\xff"]
)
def test_a_damaged_entry_is_computed_again_and_replaced(damage, folder):
    compute = Counter()
    cached("key", compute)
    (entry,) = folder.iterdir()
    entry.write_text(damage, encoding="latin-1")
    assert cached("key", compute) == FOUND
    assert compute.calls == 2
    assert json.loads(entry.read_text(encoding="utf-8"))["weights"] == 5


def test_an_entry_with_words_for_numbers_is_damaged(folder):
    cached("key", Counter())
    (entry,) = folder.iterdir()
    entry.write_text(
        json.dumps(json.loads(entry.read_text(encoding="utf-8")) | {"weights": "many"}),
        encoding="utf-8",
    )
    assert cached("key", Counter()).weights == 5


def test_a_folder_that_cannot_be_made_only_costs_time(folder):
    folder.write_text("a file stands in the way", encoding="utf-8")
    compute = Counter()
    assert cached("key", compute) == cached("key", compute) == FOUND
    assert compute.calls == 2


@pytest.mark.skipif(sys.platform != "linux", reason="each system has its own folder")
def test_without_a_choice_the_folder_is_the_systems_own(monkeypatch, tmp_path):
    monkeypatch.delenv("FTCOURSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ftcourse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ftcourse"


def test_a_change_of_our_own_code_makes_an_entry_stale(monkeypatch):
    compute = Counter()
    cached("key", compute)
    monkeypatch.setattr("ftcourse.simulate.cache._own_code", lambda: "another code")
    cached("key", compute)
    assert compute.calls == 2
