"""The exercises of lesson 08: solutions pass, and each wrong answer gets its own question."""

import pytest

from ftcourse import check
from ftcourse.decision import decide
from ftcourse.needs import Needs
from ftcourse.which_one import load_table
from ftcourse.widgets.which_one import which_one_panel

NAMES = ["secrets_behind_a_label", "place_that_is_read", "paid_back", "beaten_everywhere"]
NAMES += ["worth_of_a_zero", "one_need_turns_it"]


@pytest.mark.parametrize("name", NAMES)
def test_the_solutions_pass_and_three_hints_help(name):
    scope = {}
    exec(check.solution(name), scope)
    assert getattr(check, name)(scope["mine"])
    assert len({str(check.hint(name, number)) for number in (1, 2, 3)}) == 3


@pytest.mark.parametrize(
    ("name", "mutant", "question"),
    [
        ("secrets_behind_a_label", 85, "what a rule in the prompt let out"),
        ("secrets_behind_a_label", 100, "What does it read here"),
        ("secrets_behind_a_label", 5, "Through which door"),
        ("secrets_behind_a_label", 50, "if the page was never found"),
        ("secrets_behind_a_label", 7, "of a page with a label"),
        ("secrets_behind_a_label", "none", "Is yours a str"),
        ("place_that_is_read", "first", "So a list of hits has it"),
        ("place_that_is_read", "the middle.", "where large models are weak"),
        ("place_that_is_read", "any", "Which two orders"),
        ("place_that_is_read", "one by one", "one page in each prompt"),
        ("place_that_is_read", "second", "Choose"),
        ("place_that_is_read", 5, "Is yours an int"),
        ("paid_back", 15, "How many seconds are 20 ms"),
        ("paid_back", 5000, "What does it save in each question"),
        ("paid_back", 3750, "that is how many RAG answers"),
        ("paid_back", 6, "How many savings of 20 ms"),
        ("paid_back", -15000, "Which of the two is faster"),
        ("paid_back", 20000, "What does one question save"),
        ("paid_back", None, "No answer so far"),
        ("worth_of_a_zero", "leak", "There all four are alike"),
        ("worth_of_a_zero", "Leak, secrecy prompt", "no secret to keep with it"),
        ("worth_of_a_zero", "unanswerable, declined", "declines everything"),
        ("worth_of_a_zero", "right, new wording", "Where do some of them"),
        ("worth_of_a_zero", "right, two pages", "hard for all of them"),
        ("worth_of_a_zero", "poison believed, stuffed", "who reads pages"),
        ("worth_of_a_zero", "facts", "Choose the name of a column"),
        ("worth_of_a_zero", ["leak"], "Is yours a list"),
        ("beaten_everywhere", True, "Is yours a bool"),
        ("one_need_turns_it", "panel", "The panel itself"),
        ("one_need_turns_it", lambda: 0, "The panel itself"),
    ],
)
def test_a_wrong_answer_gets_its_own_question(name, mutant, question):
    verdict = getattr(check, name)(mutant)
    assert not verdict
    assert question.lower() in verdict.says.lower()


def test_a_word_with_an_article_and_a_point_is_that_word():
    assert check.place_that_is_read("The last.")
    assert check.worth_of_a_zero("right,  known wording.")


# --- domination --------------------------------------------------------------------------------


def gains(a, b, more):
    return [b[n] - a[n] if n in more else a[n] - b[n] for n in a]


def never_worse(a, b, more):
    found = gains(a, b, more)
    return min(found) >= 0 and max(found) > 0


COMPARED = {
    "equal: does each dominate": lambda a, b, more: min(gains(a, b, more)) >= 0,
    "better in every column": lambda a, b, more: min(gains(a, b, more)) > 0,
    "May it be worse anywhere": lambda a, b, more: max(gains(a, b, more)) > 0,
    "Is more always better": lambda a, b, more: never_worse(a, b, set(a)),
    "Is less always better": lambda a, b, more: never_worse(a, b, set()),
    "Which of the two is said to lose": lambda a, b, more: never_worse(b, a, more),
    "A sum of percent and seconds": lambda a, b, more: sum(gains(a, b, more)) > 0,
    "stopped with KeyError": lambda a, b, more: a["speed"] > b["speed"],
    "end with a return": lambda a, b, more: None,
    "Where do they part": lambda a, b, more: True,
}


@pytest.mark.parametrize("question", COMPARED)
def test_a_wrong_comparison_gets_its_own_question(question):
    verdict = check.beaten_everywhere(COMPARED[question])
    assert not verdict
    assert question in verdict.says


def test_other_ways_to_write_the_comparison_pass():
    assert check.beaten_everywhere(never_worse)
    assert check.beaten_everywhere(lambda a, b, more: int(never_worse(a, b, more)))


# --- the panel ---------------------------------------------------------------------------------


def moved(**values):
    panel = which_one_panel()
    for name, value in values.items():
        panel.controls[name].value = value
    return check.one_need_turns_it(panel)


def test_a_panel_that_is_not_turned_gets_a_question_on_why():
    """Which choice turns the answer is computed from the table, as the check does it."""
    table = load_table()
    begin = decide(Needs(), table, "T4").arm
    assert "Nothing is moved" in moved().says
    assert "Which one of them is enough" in moved(voice="must", facts="tens").says
    still = next(
        each
        for each in ({"facts": "tens"}, {"latency": 1000}, {"hours": 1})
        if decide(Needs(**each), table, "T4").arm == begin
    )
    assert f"Still {begin}" in moved(**still).says
    assert "No arm passes" in moved(pages="no").says
    assert f"Nothing dropped {begin}" in moved(facts="none").says  # it is dearer, and no limit
    assert f"Which row dropped {begin}" in moved(voice="must").says


def test_the_need_that_the_solution_names_turns_the_answer_in_the_recorded_table():
    table = load_table()
    assert decide(Needs(voice="must"), table, "T4").arm not in (
        "",
        decide(Needs(), table, "T4").arm,
    )
