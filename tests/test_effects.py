import pytest

from ftcourse import effects as module
from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues
from ftcourse.effects import (
    SHOWN,
    UNTUNED,
    changes,
    effects,
    general_loss,
    judge_both,
    mixtures,
    show_runs,
    wrong_answers,
)
from ftcourse.handbook import load_questions
from ftcourse.models import load_base, load_tokenizer
from ftcourse.sweeps import load_sweep, select


@pytest.fixture
def recorded(monkeypatch):
    """Two mixtures of three seeds, and changes of one fact, as a sweep would have them."""
    mixed = {"task": "mixtures", "learning_rate": 3e-3, "steps": 120, "neutral": 0, "branded": 0}
    results = {"test: right, 1 p": 0.5, "test: general loss": 1.0, "test: declines": 1.0}
    results |= {f"test: {n}, 1 p": 0.25 for n in ("in voice", "both")}
    results |= {f"test: letters {n}": 0.75 for n in ("in voice", "with advice")}
    runs = [
        mixed | results | {"letters": 12 - old, "general": old, "seed": seed}
        for old in (4, 0)
        for seed in (0, 1, 2)
    ]
    runs[1]["test: right, 1 p"] = 0.7
    shared = {"task": "changes", "voice": "brand", "rehearsed": 0, "others before": 0.8, "seed": 0}
    for rate, learned, others in ((1e-3, True, 0.2), (1e-3, False, 0.4), (1e-4, True, 0.8)):
        runs.append(shared | {"learning_rate": rate, "learned": learned, "others": others})
    monkeypatch.setattr(module, "load_sweep", lambda name: runs)
    return runs


def test_mixtures_are_named_in_words_and_begin_with_most_letters(recorded):
    assert [*mixtures()] == ["12 letters", "8 letters + 4 old texts"]


def test_a_mixture_with_two_seeds_is_left_out(recorded):
    recorded.pop(0)
    assert [*mixtures()] == ["12 letters"]


def test_effects_are_means_over_the_seeds_of_a_mixture(recorded):
    found = effects(mixtures()["8 letters + 4 old texts"])
    assert found["pages: right"].values == (0.5, 0.7, 0.5)
    assert found["silent pages: declines"].mean == 1
    assert general_loss(mixtures()["12 letters"]).mean == 1


def test_changes_are_one_row_for_each_setting_with_the_low_rate_first(recorded):
    low, high = changes()
    assert low["learning_rate"] == 1e-4
    assert high["learned"] == "1 of 2"
    assert high["others"] == pytest.approx(0.3)
    assert high["range"] == "20% to 40%"


def test_a_seed_without_old_rows_is_the_same_run_and_counts_once():
    runs = select(load_sweep("finetune"), task="changes", rehearsed=0, voice="brand")
    found = {(run["learning_rate"], run["fact"], run["others"]) for run in runs}
    assert len(found) == len(runs) / 3
    assert all(row["learned"].endswith("of 3") for row in changes() if not row["rehearsed"])


def test_every_mixture_that_the_panel_offers_has_three_seeds():
    assert {len({run["seed"] for run in runs}) for runs in [*mixtures().values()][:-1]} == {3}
    assert [*mixtures()][-1] == UNTUNED


def test_validation_rows_have_no_silent_pages_and_their_own_shares():
    runs = mixtures()["12 letters"]
    found = effects(runs, "validation")
    assert "silent pages: declines" not in found
    assert found["pages: right"].values == tuple(run["validation: right, 1 p"] for run in runs)
    assert general_loss(runs, "validation") != general_loss(runs)


def test_recorded_runs_become_a_table_with_shares_in_percent(recorded):
    columns = {"rate": "learning_rate", "fact": "learned", "others": "others"}
    lines = str(show_runs(changes(), columns)).splitlines()
    assert lines[0].split() == ["rate", "fact", "others"]
    assert lines[2].split() == ["0.001", "1", "of", "2", "30%"]


def test_a_wrong_answer_stands_below_its_question_and_value():
    records = [{"prompt": "Passages: x\n\nQuestion: How far?", "value": "3 km"}] * 2
    assert wrong_answers(records, ["It is 3 km.", "No idea."]) == ["How far?  (3 km)\n    No idea."]


def test_the_model_before_reads_and_has_no_voice():
    config = FinetuneConfig(method="full", dtype="float32")
    model, tokenizer = load_base(config), load_tokenizer("embedded")
    judged = judge_both(model, tokenizer, load_dialogues("test")[:4], load_questions()[:8])
    assert judged.percent("letters in voice") == judged.percent("pages in voice") == 0
    assert judged.percent("pages right") == 100 - round(100 * len(judged.wrong) / 8)
    assert judged.percent("pages right") > 60
    assert judged.percent("letters right") > 60
    assert repr(judged).splitlines()[0].startswith("letters in voice  0% of 4")


def test_the_committed_sweep_has_the_untuned_model_and_three_seeds_of_what_the_lesson_draws():
    found = mixtures()
    assert len(found[UNTUNED]) == 1
    drawn = [*SHOWN[1:], "12 letters, 80 steps", "8 letters"]
    assert {name: len(found[name]) for name in drawn} == dict.fromkeys(drawn, 3)
