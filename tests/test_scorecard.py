"""The table of one's own rounds of VRAM golf: no round is lost, whatever is in the file."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ftcourse import scorecard
from ftcourse.scorecard import Scorecard, keep_round, read_rounds

MINE = {"course": "green", "peak": 9 * 2**20, "loss": 0.5, "passed": True, "config": {"rank": 1}}


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """Return the file of the table, which is new for each test."""
    monkeypatch.setenv("FTCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("FTCOURSE_GOLF", raising=False)
    return tmp_path / "ftcourse-golf.json"


def test_a_round_comes_back_as_it_was_kept(table):
    assert read_rounds() == []
    keep_round(MINE)
    keep_round(MINE | {"loss": float("inf")})
    assert read_rounds() == [MINE, MINE | {"loss": float("inf")}]
    assert [file.name for file in table.parent.iterdir()] == [table.name]


def test_the_best_is_the_lowest_peak_that_counts():
    rounds = [MINE, MINE | {"peak": 8 * 2**20}, MINE | {"peak": 1, "passed": False}]
    green = SimpleNamespace(target=0.6, budget=10 * 2**20, par=4 * 2**20)
    shown = repr(Scorecard(rounds, {"green": green, "lake": green})).splitlines()
    assert shown[0].endswith("par   your best   loss  rounds")
    assert re.sub(" +", " ", shown[1]) == "green 0.60 10.00 MiB 4.00 MiB 8.00 MiB 0.50 3"
    assert shown[2].split()[-3:] == ["-", "-", "0"]
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize(
    "content",
    [
        b'{"edition": 1, "rounds": [{"course": "gre',
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'{"edition": 1}',
        b'{"edition": 1, "rounds": 5}',
        b'{"edition": 1, "rounds": [5]}',
        b'{"edition": 1, "rounds": [{"course": "green"}]}',
        b'{"edition": 1, "rounds": [{"course": "green", "peak": "x", "loss": 1, "passed": true}]}',
        b'{"edition": 0, "rounds": []}',
        b'{"edition": 2, "rounds": []}',
    ],
)
def test_a_damaged_table_or_one_of_another_edition_is_put_aside_and_kept(content, table):
    table.write_bytes(content)
    with pytest.warns(UserWarning, match="whole file of edition 1") as caught:
        assert read_rounds() == []
    assert "\n  got: " in str(caught[0].message)
    assert "\n  do:  " in str(caught[0].message)
    assert table.with_name("ftcourse-golf.aside-1.json").read_bytes() == content
    table.write_bytes(content)
    with pytest.warns(UserWarning, match="aside-2"):
        keep_round(MINE)
    assert table.with_name("ftcourse-golf.aside-2.json").read_bytes() == content
    assert read_rounds() == [MINE]


def test_rounds_that_end_at_the_same_time_are_all_kept(table):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: keep_round(MINE | {"peak": n}), range(24)))
    assert sorted(each["peak"] for each in read_rounds()) == list(range(24))
    assert list(table.parent.glob("*.lock")) == []


def test_a_lock_that_was_left_behind_delays_a_round_but_loses_none(table, monkeypatch):
    monkeypatch.setattr(scorecard.time, "sleep", lambda seconds: None)
    table.with_suffix(".lock").touch()
    keep_round(MINE)
    assert read_rounds() == [MINE]


def test_the_file_has_its_own_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("FTCOURSE_GOLF", str(tmp_path / "mine.json"))
    keep_round(MINE)
    assert json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))["edition"] == 1
