import ast
import re
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure

from ftcourse import check
from ftcourse.check.repair import rows_to_repair, words_of
from ftcourse.data import load_dialogues
from ftcourse.effects import UNTUNED, effects, mixtures
from ftcourse.plots.finetune import plot_effects, plot_lengths, plot_search, plot_way
from ftcourse.records import find_problem
from ftcourse.sweeps import Mean, load_sweep, select
from ftcourse.voice import voice_checks
from ftcourse.widgets.finetune import finetune_panel

LESSON = Path(__file__).parent.parent / "notebooks/06_finetune.ipynb"
NUMBERS = {
    "bits_of_products": [4, 16, 8, 2, 64, "32", None, float("nan")],
    "merge_into": [2, 3, 0, 4, 7, "1", [1]],
    "tokens_that_teach": [80, 320, 380, 60, 300, 0, 21, -20, "20"],
}


@pytest.mark.parametrize(
    "name", [*NUMBERS, "repaired", "rows_that_may_train", "keeps_reading", "due_to_old_texts"]
)
def test_a_solution_passes_and_there_are_three_hints(name):
    scope = {}
    exec(str(check.solution(name)), scope)
    assert getattr(check, name)(scope["mine"])
    assert len({str(check.hint(name, number)) for number in (1, 2, 3)}) == 3


@pytest.mark.parametrize("name", NUMBERS)
def test_each_typical_wrong_number_gets_its_own_question(name):
    verdicts = [getattr(check, name)(wrong) for wrong in NUMBERS[name]]
    assert not any(verdicts)
    said = [verdict.says for verdict in verdicts[:4]]
    assert len({*said}) == 4
    assert all("?" in each for each in said)


# --- a file to repair ---------------------------------------------------------------------------


def solved():
    rows = rows_to_repair()
    rows[3] = {"prompt": rows[3]["completion"], "completion": rows[3]["prompt"]}
    return rows


GOOD = (0, 2, 3, 5, 7, 10)
CUT, FULL = rows_to_repair()[9], load_dialogues("train")[111]
INVENTED = FULL | {"prompt": "Why?"}
STEP = CUT | {
    "completion": CUT["completion"]
    + " Your next step: wait for rain. Clear skies, your Wrenfield team."
}


@pytest.mark.parametrize(
    ("rows", "question"),
    [
        (lambda: rows_to_repair(), "find_problems still names"),
        (lambda: [solved()[n] for n in (*GOOD, 1)], "find_problems still names"),
        (lambda: [rows_to_repair()[n] for n in GOOD], "Which way round are they?"),
        (lambda: [solved()[n] for n in (*GOOD, 4)], "letters also among those that judge"),
        (lambda: [solved()[n] for n in (*GOOD, 6)], "Do capitals make another letter"),
        (lambda: [solved()[n] for n in (*GOOD, 9)], "stops in the middle"),
        (lambda: [solved()[n] for n in GOOD if n != 3], "repaired instead of dropped"),
        (lambda: [solved()[n] for n in GOOD[1:]], "A good row is gone"),
        (lambda: [solved()[n] for n in GOOD if n != 2], "A good row is gone"),
        (lambda: [*(solved()[n] for n in GOOD), INVENTED], "words that the file does not have"),
        (lambda: [*(solved()[n] for n in GOOD), STEP], "words that the file does not have"),
        (lambda: [{"messages": [r]} for r in solved()], "`prompt` and `completion`"),
        (lambda: [], "Nothing is left"),
        (lambda: "rows.jsonl", "A list of records is asked for"),
    ],
)
def test_each_way_to_leave_a_file_broken_gets_its_own_question(rows, question):
    verdict = check.repaired(rows())
    assert not verdict
    assert question in verdict.says


def test_either_copy_of_the_doubled_row_may_stay():
    assert check.repaired([solved()[n] for n in (0, 6, 3, 5, 7, 10)])


def test_the_file_to_repair_has_the_mistakes_that_it_is_said_to_have():
    rows = rows_to_repair()
    assert [n for n, row in enumerate(rows) if find_problem(row)] == [1, 8]
    exam = {words_of(row["prompt"]) for row in load_dialogues("test")}
    assert [n for n, row in enumerate(rows) if words_of(row["prompt"]) in exam] == [4]
    broken = [n for n, r in enumerate(rows) if not all(voice_checks(str(r["completion"])).values())]
    assert broken == [1, 3, 8, 9]


def test_the_cut_answer_may_be_completed_with_the_words_of_the_desk():
    assert check.repaired([*(solved()[n] for n in GOOD), FULL])


# --- leaks --------------------------------------------------------------------------------------


def may_train(held=True, twice=True, key=lambda r: r["prompt"].lower().split(), flip=False):
    def function(records, held_out):
        seen = [key(r) for r in held_out] if held else []
        flags = []
        for record in records:
            flags.append((key(record) not in seen) != flip)
            if twice:
                seen.append(key(record))
        return flags

    return function


@pytest.mark.parametrize(
    ("mine", "question"),
    [
        (may_train(held=False), "Do you look into held_out?"),
        (may_train(twice=False), "Look inside records, too."),
        (may_train(key=lambda r: r["prompt"].split()), "two questions?"),
        (may_train(key=lambda r: r["prompt"].lower()), "How many spaces"),
        (may_train(key=lambda r: r["prompt"].lower().replace("  ", " ")), "And a tab"),
        (may_train(key=lambda r: r["prompt"].lower().split(" ")), "How many spaces"),
        (may_train(key=lambda r: "".join(r["prompt"].lower().split())), "Where does a word"),
        (may_train(key=lambda r: {*r["prompt"].lower().split()}), "in another order"),
        (may_train(key=lambda r: re.findall(r"\w+", r["prompt"].lower())), "the same word as"),
        (
            may_train(key=lambda r: (r["prompt"].lower().split(), r["completion"])),
            "compare answers",
        ),
        (may_train(key=lambda r: r["prompt"].lower().split()[:6]), "differ in their last word"),
        (may_train(key=lambda r: r["prompt"].lower().split()[:20]), "differ in their last word"),
        (may_train(flip=True), "Is True for a record that may train"),
        (lambda records, held_out: [True], "shape"),
        (lambda records, held_out: None, "returned None"),
        (lambda records: records, "stopped with TypeError"),
        ([True], "A function is asked for"),
    ],
)
def test_each_typical_wrong_function_gets_its_own_question(mine, question):
    verdict = check.rows_that_may_train(mine)
    assert not verdict
    assert question in verdict.says


def test_a_function_that_counts_and_one_that_keeps_the_last_get_their_questions():
    def only_unique(records, held_out):
        keys = [words_of(r["prompt"]) for r in records]
        exam = {words_of(r["prompt"]) for r in held_out}
        return [k not in exam and keys.count(k) == 1 for k in keys]

    def last(records, held_out):
        return may_train()(records[::-1], held_out)[::-1]

    assert "does none stay?" in check.rows_that_may_train(only_unique).says
    assert "the first stay, or the last?" in check.rows_that_may_train(last).says


def test_a_function_that_changes_what_it_is_given_is_asked_about_it():
    def turns(records, held_out):
        flags = may_train()(records, held_out)
        records.reverse()
        return flags

    def renames(records, held_out):
        for row in (*records, *held_out):
            row["prompt"] = " ".join(row["prompt"].lower().split())
        return may_train()(records, held_out)

    for function in (turns, renames):
        assert "still as they were given?" in check.rows_that_may_train(function).says


def test_a_function_that_returns_dots_is_no_answer_yet():
    assert "No answer so far" in check.rows_that_may_train(lambda records, held_out: ...).says


# --- the panel ----------------------------------------------------------------------------------


def test_the_panel_offers_the_recorded_mixtures_and_no_others():
    panel = finetune_panel()
    recorded = mixtures()
    assert [*panel.controls["mixture"].options] == [*recorded]
    assert panel.values["mixture"] == "12 letters"
    for name in recorded:
        panel.controls["mixture"].value = name
        assert "Error" not in panel.text
        assert "Loss of general text" in panel.text


def test_a_move_says_what_it_did_to_answers_about_pages():
    panel = finetune_panel()
    panel.controls["mixture"].value = "4 letters + 8 branded answers about pages"
    assert panel.moved.startswith("mixture 12 letters to 4 letters + 8 branded")
    assert "right and in voice about pages: 0 to" in panel.moved
    panel.controls["beside"].value = "12 letters"
    assert panel.moved == ""


@pytest.mark.parametrize(
    ("moves", "question"),
    [
        ({}, "Is any answer about a page in the voice?"),
        ({"rows": "test"}, "Which rows may choose?"),
        ({"mixture": "8 letters + 4 branded answers about pages"}, "is it 70 %?"),
        ({"mixture": UNTUNED}, "Do enough letters have the voice?"),
        ({"mixture": "4 letters + 8 branded answers about pages"}, "lower loss of general text?"),
    ],
)
def test_each_wrong_mixture_gets_its_own_question(moves, question):
    panel = finetune_panel()
    for name, value in moves.items():
        panel.controls[name].value = value
    verdict = check.keeps_reading(panel)
    assert not verdict
    assert question in verdict.says
    assert "The panel itself" in check.keeps_reading("4 letters").says


def test_effects_are_means_over_the_seeds():
    runs = mixtures()["12 letters"]
    found = effects(runs, "test, three pages")["pages: right"]
    assert found.values == tuple(run["test: right, 3 p"] for run in runs)
    assert len(found.values) == 3


# --- pictures -----------------------------------------------------------------------------------


def test_lengths_beyond_the_cut_are_counted_in_words():
    ax = plot_lengths([60, 70, 80, 90], max_length=80)
    assert ax.alt == "4 records of 60 to 90 tokens; 1 are longer than 80."
    assert sum(patch.get_height() for patch in ax.patches) > 0


def test_a_search_names_its_lowest_loss_and_its_suggestion():
    ax = plot_search([1e-3, 1e-2, 1e-1], [5.0, 1.0, 9.0], suggestion=1e-3)
    assert "lowest, 1.00, at 0.01. Suggested: 0.001." in ax.alt


def test_effects_have_a_bar_for_each_model_and_measure():
    found = {name: {"right": Mean((0.5, 0.7)), "both": Mean((0.1,))} for name in ("a", "b")}
    ax = plot_effects(found)
    assert len(ax.patches) == 4
    assert "a 60%" in ax.alt
    given = Figure().subplots()
    assert plot_effects(found, ax=given) is given


def test_the_way_of_a_file_says_which_rows_decide():
    assert "Validation rows decide rate, mixture, and when to stop." in plot_way().alt


def test_the_control_of_old_texts_has_as_many_letters_and_updates():
    few, mixed = (mixtures()[name] for name in ("8 letters", "8 letters + 4 old texts"))
    for name in ("letters", "steps", "learning_rate", "rank"):
        assert {run[name] for run in few} == {run[name] for run in mixed}


@pytest.mark.parametrize(
    ("wrong", "question"),
    [
        (lambda s: s["mixed"] - s["alone"], "12 letters: two things differ"),
        (lambda s: s["mixed"] - s["short"], "fewer updates"),
        (lambda s: s["few"] - s["mixed"], "Which of the two is better?"),
        (lambda s: (s["mixed"] - s["few"]) / 100, "Points of 100"),
    ],
)
def test_each_wrong_control_gets_its_own_question(wrong, question):
    names = {"few": "8 letters", "alone": "12 letters", "short": "12 letters, 80 steps"}
    names["mixed"] = "8 letters + 4 old texts"
    found = {k: 100 * effects(mixtures()[n])["pages: right"].mean for k, n in names.items()}
    verdict = check.due_to_old_texts(wrong(found))
    assert not verdict
    assert question in verdict.says
    assert check.due_to_old_texts(round(found["mixed"] - found["few"]))


# --- what the lesson says of recorded runs ---------------------------------------------------


def test_the_lowest_held_out_loss_is_not_the_end_and_the_end_has_more_voice():
    runs = select(load_sweep("finetune"), task="too few")
    for seed in (0, 1, 2):
        *before, end = select(runs, seed=seed)
        kept = min(before, key=lambda run: run["held-out loss"])
        assert (kept["steps"], end["steps"]) == (30, 300)
        assert end["held-out loss"] > kept["held-out loss"]
        assert end["letters in voice"] > kept["letters in voice"]
        assert end["letters with advice"] > kept["letters with advice"]


def test_no_recorded_mixture_grants_every_wish():
    found = {name: effects(runs, "validation") for name, runs in mixtures().items()}
    chosen = found["4 letters + 6 branded answers about pages + 2 old texts"]
    assert sum(value > 0.5 for value in chosen["letters: right advice"].values) == 1
    held = found["8 letters + 4 neutral answers about pages"]["letters: right advice"]
    assert min(held.values) > 0.9
    advised = [each for each in found.values() if each["letters: right advice"].mean > 0.9]
    assert max(each["pages: both"].mean for each in advised) < 0.7


# --- the notebook -------------------------------------------------------------------------------


def names_in(source, context):
    tree = ast.parse(source)
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def test_a_cell_of_asserts_defines_nothing_that_a_later_cell_needs():
    """With other rows or another model it fails, and the reader goes on with the next cell."""
    cells = [c for c in nbformat.read(LESSON, as_version=4).cells if c.cell_type == "code"]
    sources = {cell.id: re.sub("(?m)^ *%.*$", "pass", cell.source) for cell in cells}
    asserts, offenders = [name for name in sources if name.endswith("-assert")], []
    assert len(asserts) > 4
    for name in asserts:
        left = names_in(sources[name], ast.Store)
        for later in [*sources][[*sources].index(name) + 1 :]:
            if later not in asserts:
                needs = names_in(sources[later], ast.Load) - names_in(sources[later], ast.Store)
                offenders += [(name, later, each) for each in sorted(needs & left)]
                left -= names_in(sources[later], ast.Store)
    assert offenders == []
