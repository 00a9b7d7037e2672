import json
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from store_notebooks import collect_trials
from trials import read_trial, stored_trials

from ftcourse.claims import Claim, Claims, Trial, all_claims, try_claim
from ftcourse.errors import CourseError

ROOT = Path(__file__).parent.parent
CLAIMS = json.loads((ROOT / "data/claims.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("speaks", "verdict"),
    [
        ([True, True], "holds"),
        ([True, False], "holds under conditions"),
        ([False], "fails"),
        ([], "cannot be tried here"),
    ],
)
def test_the_verdict_follows_from_the_evidence(speaks, verdict):
    evidence = {f"measurement {number}": each for number, each in enumerate(speaks)}
    trial = try_claim("double-quantization", evidence, why="the reason")
    assert trial.verdict == verdict
    assert verdict in repr(trial)
    assert verdict in trial._repr_html_()
    assert [("the reason" in text) for text in (repr(trial), trial._repr_html_())] == [
        not speaks
    ] * 2


def test_a_trial_without_evidence_says_why():
    with pytest.raises(CourseError, match="says why"):
        try_claim("robust-to-noise", {})
    with pytest.raises(CourseError, match="says why"):
        try_claim("robust-to-noise", {}, why=" ")


def test_what_a_trial_shows_can_be_read_back():
    words = "a long measurement " * 8
    trial = Trial("a claim", ("a source",), ((words.strip(), True), ("another", False)))
    assert max(map(len, repr(trial).splitlines())) <= 80
    assert read_trial(repr(trial)) == {
        "evidence": {words.strip(): True, "another": False},
        "verdict": "holds under conditions",
    }


def test_the_reason_for_no_evidence_can_be_read_back():
    words = "a well-known reason of the three-seeds kind - and more words " * 3
    assert read_trial(repr(Trial("a claim", (), (), words.strip()))) == {
        "evidence": {},
        "why": words.strip(),
        "verdict": "cannot be tried here",
    }


def test_html_in_the_words_of_a_trial_is_text():
    assert "<b>x" not in Trial("<b>x", (), (("<b>x", True),))._repr_html_()


def test_an_unknown_claim_is_an_error_that_names_the_known_ones():
    with pytest.raises(CourseError, match="double-quantization"):
        try_claim("double", {})


def test_each_claim_has_words_sources_and_a_number_of_its_own():
    numbers = [claim["number"] for claim in CLAIMS.values()]
    assert len(set(numbers)) == len(numbers)
    assert all(claim["claim"] and claim["sources"] for claim in CLAIMS.values())


def test_the_file_holds_what_the_lessons_measured_and_nothing_else():
    found = {name: {} for name in CLAIMS}
    for lesson in sorted(ROOT.glob("notebooks/*.ipynb")):
        for name, trial in stored_trials(nbformat.read(lesson, as_version=4)).items():
            found[name][lesson.stem] = trial
    assert {name: claim["trials"] for name, claim in CLAIMS.items()} == found


def test_each_stored_verdict_follows_from_its_stored_evidence():
    for name, claim in CLAIMS.items():
        for trial in claim["trials"].values():
            again = try_claim(name, trial["evidence"], trial.get("why", ""))
            assert read_trial(repr(again)) == {k: v for k, v in trial.items() if k != "cell"}


def made(number, *lessons):
    """Return a claim that each lesson tried with the evidence given."""
    cells = enumerate(lessons)
    trials = (
        (f"0{n}_x.ipynb#cell-id=x", Trial("a & b", ("c",), pairs, "" if pairs else "no <GPU>"))
        for n, pairs in cells
    )
    return Claim(number, "a-b", "a & b", ("c",), tuple(trials))


YES, NO = (("it was", True),), (("it was not", False),)


@pytest.mark.parametrize(
    ("lessons", "verdict"),
    [
        ([], "no lesson tries it"),
        ([()], "cannot be tried here"),
        ([(), YES], "holds"),
        ([YES, NO], "holds under conditions"),
        ([NO, NO], "fails"),
    ],
)
def test_the_verdict_over_all_is_that_of_all_evidence_together(lessons, verdict):
    assert made(1, *lessons).verdict == verdict


def test_the_table_of_claims_has_a_verdict_over_all_and_one_for_each_lesson():
    table = Claims((made(1, YES, NO), made(2, ()), made(3)))
    rows = [re.split(r"  +", line.strip()) for line in repr(table).splitlines()]
    assert rows == [
        ["claim", "verdict", "lesson"],
        ["1", "a & b", "holds under conditions", "all"],
        ["holds", "00"],
        ["fails", "01"],
        ["2", "a & b", "cannot be tried here", "00"],
        ["3", "a & b", "no lesson tries it"],
        [
            "3 claims: holds under conditions 1, cannot be tried here 1, no lesson tries it 1",
        ],
    ]


def test_all_claims_are_shown_in_the_order_of_their_numbers_on_a_narrow_page():
    claims = all_claims().claims
    assert [claim.number for claim in claims] == list(range(1, 20))
    assert {claim.name: len(claim.trials) for claim in claims} == {
        name: len(claim["trials"]) for name, claim in CLAIMS.items()
    }
    assert max(map(len, repr(all_claims()).splitlines())) <= 80
    column = "".join(line[4:50] for line in repr(all_claims()).splitlines())
    assert all(re.sub(r"\s", "", claim.claim) in re.sub(r"\s", "", column) for claim in claims)


def test_the_html_of_a_claim_has_its_sources_evidence_reasons_and_cells():
    page = BeautifulSoup(Claims((made(7, YES, NO, ()),))._repr_html_(), "html.parser")
    assert page.summary.get_text() == "7. a & b holds under conditions"
    assert [item.get_text() for item in page.find_all("li")] == [
        "✓ yes: it was",
        "✗ no: it was not",
        "no <GPU>",
    ]
    assert [link["href"] for link in page.find_all("a")] == [
        f"0{n}_x.ipynb#cell-id=x" for n in range(3)
    ]
    assert "Sources: c" in page.get_text()


def test_storing_a_lesson_replaces_its_own_trials_and_keeps_those_of_others(tmp_path):
    path = tmp_path / "claims.json"
    kept = {"cell": "x", "evidence": {"it was": True}, "verdict": "holds"}
    claims = {"a": {"trials": {"00_x": kept}}, "b": {"trials": {"01_y": kept, "00_x": kept}}}
    path.write_text(json.dumps(claims), encoding="utf-8")
    cell = nbformat.v4.new_code_cell('try_claim("a", {})', id="y-trial")
    data = {"text/plain": repr(Trial("A claim.", (), (), "no GPU"))}
    cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert collect_trials(notebook, "01_y", path)
    new = {"cell": "y-trial", "evidence": {}, "why": "no GPU", "verdict": "cannot be tried here"}
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": {"trials": {"00_x": kept, "01_y": new}},
        "b": {"trials": {"00_x": kept}},
    }
    assert not collect_trials(notebook, "01_y", path)
