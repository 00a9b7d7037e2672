import ast
import json
import math
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import v4
from store_notebooks import state_seconds

from ftcourse import handout
from ftcourse.handout import fingerprint, measure_pace, round_seconds, unanswered

LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
HELLO = v4.new_output("stream", name="stdout", text="hello")


def notebook(*sources, **fields):
    """Return the text of a notebook with code cells."""
    cells = [v4.new_code_cell(text, id=f"c{n}", **fields) for n, text in enumerate(sources)]
    return nbformat.writes(v4.new_notebook(cells=cells))


def handed(source, pace=None):
    """Return how the source of a cell is handed out."""
    (cell,) = nbformat.reads(unanswered(notebook(source), pace), as_version=4).cells
    return cell.source


def test_outputs_and_counts_are_gone_and_all_else_stays():
    lesson = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# Größe\n\nguess = 3", id="a"),
            v4.new_code_cell("x = 3\nx", id="b", outputs=[HELLO], execution_count=7),
            v4.new_code_cell("%pip install x\nguess = 3", id="c", metadata={"tags": ["t"]}),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    copy = nbformat.reads(unanswered(nbformat.writes(lesson)), as_version=4)
    nbformat.validate(copy)
    lesson.cells[1].update(outputs=[], execution_count=None)
    assert copy == lesson


def test_the_result_does_not_depend_on_outputs_or_on_the_layout_of_the_file():
    plain = notebook("guess = 1")
    run = notebook("guess = 2", outputs=[HELLO], execution_count=3)
    joined = json.loads(run)
    joined["cells"][0]["source"] = "guess = 2"
    assert unanswered(plain) == unanswered(run) == unanswered(json.dumps(joined))
    assert unanswered(plain.encode()) == unanswered(plain)
    assert unanswered(unanswered(plain)) == unanswered(plain)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("guess_voice = 50  # of 100", "guess_voice = ...  # of 100"),
        ("guess = (1 +\n    2)  # ä\nguess", "guess = ...  # ä\nguess"),
        ("é = 'ä'; guess_a = 'ö'; guess_b=2", "é = 'ä'; guess_a = ...; guess_b = ..."),
        ("guesses = {\n  'a': 1,  # one\n}\nx = [\n1]", "guesses = ...\nx = [\n1]"),
        ("guess = also = f(3)", "guess = also = ..."),
        ("if True:\n    guess = 3\n", "if True:\n    guess = ...\n"),
        ("my_guess = 3\nguess == 4", "my_guess = 3\nguess == 4"),
        ("x.guess = 3\nprint('guess = 3')", "x.guess = 3\nprint('guess = 3')"),
        ("del guess", "del guess"),
    ],
)
def test_the_value_of_each_guess_is_taken_out_and_comments_stay(source, expected):
    assert handed(source) == expected


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_no_guess_is_made_in_a_lesson_that_is_handed_out(lesson):
    for cell in nbformat.reads(unanswered(lesson.read_bytes()), as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
                bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                if bound and node.id.startswith("guess"):
                    assert f"{node.id} = ..." in cell.source


def test_a_text_that_is_no_notebook_is_returned_as_it_is():
    for text in ("# Terms\n", "{", "[1]", "null", '{"cells": 3}', '{"cells": [{}]}'):
        assert unanswered(text) == unanswered(text.encode()) == text


def test_what_jupyterlab_adds_when_it_saves_does_not_change_the_fingerprint():
    ours = notebook("x = 1\nx")
    saved = json.loads(ours)
    saved["metadata"] = {"language_info": {"name": "python", "version": "3.13.1"}}
    saved["cells"][0] |= {"source": "x = 1\nx", "metadata": {"trusted": True}}
    assert fingerprint(json.dumps(saved).encode()) == fingerprint(ours.encode())


@pytest.mark.parametrize(
    "change",
    [
        {"source": ["x = 2"]},
        {"outputs": [HELLO]},
        {"execution_count": 1},
        {"cell_type": "markdown"},
        {"attachments": {"picture.png": {"image/png": "..."}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_learner_changes_changes_the_fingerprint(change):
    ours = notebook("x = 1")
    theirs = json.loads(ours)
    theirs["cells"][0] |= change
    assert fingerprint(json.dumps(theirs).encode()) != fingerprint(ours.encode())
    theirs = json.loads(ours)
    theirs["cells"].append(theirs["cells"][0])
    assert fingerprint(json.dumps(theirs).encode()) != fingerprint(ours.encode())


def test_a_file_that_is_no_notebook_is_compared_by_its_bytes():
    assert fingerprint(b"text") == fingerprint(b"text")
    assert fingerprint(b"text") != fingerprint(b"text ")


RECORDED = "# about 30 s on two cores without a GPU\nrun()"


def test_seconds_are_scaled_to_this_machine_only_if_its_pace_is_known():
    assert handed(RECORDED) == RECORDED
    assert handed(RECORDED, 0.6) == "# about 20 s on this machine\nrun()"
    assert handed(RECORDED, 10.0) == "# about 300 s on this machine\nrun()"
    assert handed("x = 1\n" + RECORDED, 2.0) == "x = 1\n" + RECORDED  # not the first line


def test_other_seconds_are_no_change_of_the_learner():
    copies = {fingerprint(unanswered(notebook(RECORDED), pace).encode()) for pace in (None, 1, 3)}
    assert copies == {fingerprint(notebook("run()").encode())}


def test_seconds_are_rounded_to_five_below_a_minute_and_to_ten_above():
    seconds = (0.3, 7, 8, 32, 33, 59, 61, 66, 149)
    assert [round_seconds(s) for s in seconds] == [5, 5, 10, 30, 35, 60, 60, 70, 150]


def test_the_pace_is_the_fastest_step_and_the_reference_is_one(monkeypatch):
    pace = measure_pace()
    assert math.isfinite(pace)
    assert pace > 0
    monkeypatch.setattr(handout, "REFERENCE_SECONDS", handout.REFERENCE_SECONDS / 1000)
    assert measure_pace() > 10 * pace


def executed(source, seconds):
    """Return a notebook with a set-up cell and one more, as it is after a run."""
    cells = [v4.new_code_cell("first"), v4.new_code_cell(source)]
    for cell in cells:
        cell.metadata.execution = {
            "iopub.execute_input": "2026-01-01T00:00:00.000000Z",
            "shell.execute_reply": f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}.000000Z",
        }
    return v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("source", "seconds", "expected"),
    [
        ("run()", 9, "run()"),
        ("run()", 31, RECORDED),
        (RECORDED, 39, RECORDED),  # right to a third
        (RECORDED, 21, RECORDED),
        (RECORDED, 41, RECORDED.replace("30", "40")),
        (RECORDED, 100, RECORDED.replace("30", "100")),
        (RECORDED.replace("30", "10"), 9, RECORDED.replace("30", "10")),
        (RECORDED, 7, "run()"),
    ],
)
def test_storing_a_lesson_states_the_seconds_of_each_long_cell_but_the_first(
    source, seconds, expected
):
    lesson = executed(source, seconds)
    state_seconds(lesson, 1.0)
    assert [cell.source for cell in lesson.cells] == ["first", expected]


def test_the_seconds_that_are_stored_are_those_of_the_reference():
    lesson = executed("run()", 15)
    state_seconds(lesson, 0.5)  # this machine takes half as long
    assert lesson.cells[1].source == RECORDED
