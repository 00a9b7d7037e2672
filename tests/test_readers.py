"""Files of records, place by place: all that is wrong in them, and not only the first of it."""

import json

import pytest

from ftcourse.audit import find_problems
from ftcourse.data import load_records
from ftcourse.errors import CourseError

GOOD = {"prompt": "How long does the Wren fly?", "completion": "It flies 31 minutes."}


def test_all_problems_of_a_file_come_with_their_lines(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [json.dumps(GOOD), "{half", json.dumps({"prompt": "q"}), "", "[1]", json.dumps(GOOD)]
    path.write_text("\n".join(rows), encoding="utf-8")
    found = find_problems(path)
    assert [problem.place for problem in found] == ["line 2", "line 3", "line 5"]
    assert "'{half'" in found[0].words
    assert found[1].words == "it has 'prompt'"
    with pytest.raises(CourseError, match="line 2"):
        load_records(path)  # the first of them


def test_a_csv_file_is_read_on_behind_a_broken_row(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("prompt,completion\na,b\na\nc,\nd,e\n", encoding="utf-8")
    assert [problem.place for problem in find_problems(path)] == ["line 3", "line 4"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_file_without_problems_has_none(name, tmp_path):
    path = tmp_path / name
    text = "prompt,completion\na,b\n" if name == "a.csv" else json.dumps(GOOD)
    path.write_text(text, encoding="utf-8")
    assert find_problems(path) == []


@pytest.mark.parametrize("data", [5, None, {"prompt": "q"}], ids=repr)
def test_what_is_no_data_has_no_problems_but_is_refused(data):
    with pytest.raises(CourseError):
        find_problems(data)
