import json
from pathlib import Path

import nbformat
import pytest
from trials import read_trial, stored_trials

from ftcourse.claims import Trial, try_claim
from ftcourse.errors import CourseError

ROOT = Path(__file__).parent.parent
CLAIMS = json.loads((ROOT / "data/claims.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("speaks", "verdict"),
    [
        ([True, True], "holds"),
        ([True, False], "holds under conditions"),
        ([False], "wrong"),
        ([], "nobody measured it"),
    ],
)
def test_the_verdict_follows_from_the_evidence(speaks, verdict):
    evidence = {f"measurement {number}": each for number, each in enumerate(speaks)}
    trial = try_claim("double-quantization", evidence)
    assert trial.verdict == verdict
    assert verdict in repr(trial)
    assert verdict in trial._repr_html_()


def test_what_a_trial_shows_can_be_read_back():
    words = "a long measurement " * 8
    trial = Trial("a claim", ("a source",), ((words.strip(), True), ("another", False)))
    assert max(map(len, repr(trial).splitlines())) <= 80
    assert read_trial(repr(trial)) == {
        "evidence": {words.strip(): True, "another": False},
        "verdict": "holds under conditions",
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
