"""Which arm is recommended: over the whole grid of needs, and where single cells change."""

import ast
import inspect
import random
from dataclasses import replace
from itertools import pairwise, product
from math import inf

import pytest
from made_up_arms import CLOSED, VALUES, lines, write

from ftcourse import decision
from ftcourse.config import FinetuneConfig
from ftcourse.decision import compared, decide, pick, points, unknown
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card
from ftcourse.memory import predict_memory
from ftcourse.memory.fit import context_bytes
from ftcourse.needs import NEEDED, Needs, needed
from ftcourse.shape import load_shape, parameter_count
from ftcourse.which_one import ARMS, COLUMNS, load_table

MACHINES = [("embedded", "T4"), ("llama-3.1-8b", "T4"), ("llama-3.1-8b", "A100 80GB")]
MACHINES += [("llama-3.1-70b", "RTX 4090")]
LATENCIES, HOURS = (inf, 65, 45), (inf, 0.05, 0)  # from the mildest on
CHOICES = {need: [*choices] for need, choices in NEEDED.items()}


def made(folder, **changes):
    return load_table(write(folder, lines(**changes)))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return made(tmp_path_factory.mktemp("arms"))


@pytest.fixture(scope="module")
def grid(table):
    """Return the decision for every combination of choices, on some models and cards."""
    found = {}
    for values in product(*CHOICES.values(), LATENCIES[:2], HOURS[::2], MACHINES):
        *chosen, latency, hours, (model, card) = values
        named = dict(zip(CHOICES, chosen, strict=True))
        needs = Needs(**named, latency=latency, hours=hours, model=model)
        found[needs, card] = decide(needs, table, card)
    return found


def value(table, arm, column):
    """Return a value so that more is better; what does not exist is none of it."""
    sign = 1 if COLUMNS[column].better == "more" else -1
    return sign * (table[arm][column].value or 0)


def known(table, arms, needs):
    """Return the needed columns in which these arms can be compared."""
    return [c for c in needed(needs) if not any(unknown(table[arm][c]) for arm in arms)]


def dominates(table, one, other, columns):
    apart = [value(table, one, c) - value(table, other, c) for c in columns]
    return min(apart) >= 0 and max(apart) > 0


def test_no_recommended_arm_is_dominated_by_another_that_is_allowed(grid, table):
    some = 0
    for (needs, _), found in grid.items():
        allowed = [arm for arm in table if arm not in found.dropped]
        columns = known(table, allowed, needs)
        assert bool(found.arm) == bool(allowed)
        if found.arm:
            some += 1
            assert found.arm in allowed
            assert not any(dominates(table, arm, found.arm, columns) for arm in allowed)
            rest = [arm for arm in allowed if arm != found.arm]
            assert bool(found.runner_up) == bool(rest)
            if rest:
                assert found.runner_up in rest
    assert 500 < some < len(grid) - 500  # the grid asks for much, and for little
    assert {found.arm for found in grid.values()} >= {"", "RAG", "LoRA", "QLoRA", "RAG + LoRA"}


def test_no_dominated_arm_is_picked_from_tables_of_chance(tmp_path):
    rng = random.Random(8)
    met = 0
    for _ in range(12):
        changes = {
            f"{arm}/{c}": rng.choice([0, 50, 90, 92, 100])
            if COLUMNS[c].unit == "%"
            else rng.choice([0, 0.2, 1, 1.5, 90])
            for arm in ARMS
            for c in COLUMNS
        }
        table = made(tmp_path, **changes)
        for _ in range(60):
            needs = Needs(**{need: rng.choice(choices) for need, choices in CHOICES.items()})
            arms = rng.sample(ARMS, 4)
            first = pick(arms, needs, table)
            columns = known(table, arms, needs)
            assert not any(dominates(table, arm, first, columns) for arm in arms)
            met += any(dominates(table, a, b, columns) for a in arms for b in arms)
    assert met > 20  # there was something to fall for


def test_every_dropped_arm_has_a_reason_that_names_its_row(grid, table):
    others = {"needs pages, and there are none", "needs letters, and there are none"}
    for (needs, card), found in grid.items():
        named = {*needed(needs), *others, f"Does not fit the {CARDS[card].name}"}
        for arm, words in found.dropped.items():
            assert arm in table
            assert {reason.split(": ")[0] for reason in words.split("; ")} <= named
        assert len(found.notes) == len(found.dropped) + len(found.close) + len(found.thin)


def most_bytes(arm, model, card):
    """Return what an arm needs at least: a training step, or the weights in 16 bits."""
    if method := {"LoRA": "lora", "QLoRA": "qlora", "RAG + LoRA": "lora"}.get(arm):
        return predict_memory(FinetuneConfig(model=model, method=method), card).allocated
    return 2 * parameter_count(load_shape(model))


def test_no_recommended_arm_needs_more_memory_than_the_card_has(grid):
    sizes = {
        (arm, model, card): most_bytes(arm, model, CARDS[card]) + context_bytes(CARDS[card])
        for model, card in MACHINES
        for arm in ARMS
    }
    recommended = {(found.arm, needs.model, card) for (needs, card), found in grid.items()}
    for arm, model, card in recommended:
        assert not arm or sizes[arm, model, card] <= CARDS[card].memory
    assert ("QLoRA", "llama-3.1-8b", "T4") in recommended
    assert not any(arm for arm, model, _ in recommended if model == "llama-3.1-70b")


def test_a_model_of_8_billion_parameters_is_not_even_read_by_a_t4(table):
    found = decide(Needs(model="llama-3.1-8b"), table, "T4")
    assert found.arm == "QLoRA"
    assert "Does not fit the Tesla T4: 15.02 GiB of tensors" in found.dropped["RAG"]
    assert found.thin[0] == (
        "RAG on a 4-bit base was not measured; by arithmetic it takes 5.47 GiB to answer: it fits"
    )
    assert "RAG + LoRA on a 4-bit base was not measured" in found.thin[1]
    assert "all but the memory is that of embedded" in found.thin[2]
    assert decide(Needs(model="llama-3.1-8b"), table, "A100 80GB").arm == "RAG"


def test_a_stricter_need_never_brings_back_a_dropped_arm(grid):
    for (needs, card), found in grid.items():
        for need, choices in CHOICES.items():
            for mild, strict in pairwise(choices):
                if getattr(needs, need) == mild:
                    other = grid[replace(needs, **{need: strict}), card]
                    assert found.dropped.keys() <= other.dropped.keys(), (needs, need)


@pytest.mark.parametrize(("name", "values"), [("latency", LATENCIES), ("hours", HOURS)])
def test_a_stricter_number_never_brings_back_a_dropped_arm(table, name, values):
    dropped = [decide(Needs(**{name: value}), table, "T4").dropped for value in values]
    assert all(mild.keys() <= strict.keys() for mild, strict in pairwise(dropped))
    assert len(dropped[0]) < len(dropped[-1])


def test_a_smaller_card_never_brings_back_a_dropped_arm(table):
    cards = [Card("any", n * GIB, (8, 0)) for n in (80, 20, 16, 12, 6, 1)]
    dropped = [decide(Needs(model="llama-3.1-8b"), table, card).dropped for card in cards]
    assert all(large.keys() <= small.keys() for large, small in pairwise(dropped))
    assert {*dropped[-1]} == {*ARMS}


# --- computed from the table ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "changes", "before", "after"),
    [
        ({}, {"RAG/right, known wording": 0}, "RAG", "RAG + LoRA"),
        ({"secrecy": "staff secrets"}, {"RAG/leak": 50}, "RAG", "RAG + LoRA"),
        ({"voice": "must"}, {"RAG + LoRA/letters in voice": 20}, "RAG + LoRA", "LoRA"),
        ({"voice": "must"}, {"RAG/facts in voice": 99, "RAG/letters in voice": 99}, "RAG + LoRA",
         "RAG"),
        ({"strangers": "yes"}, {"RAG/poison believed, stuffed": 0, "RAG/poison believed, plain": 0},
         "LoRA", "RAG"),
        ({"changes": "daily"}, {"RAG/changed fact, after": 3}, "RAG", "RAG + LoRA"),
        ({"strangers": "yes"}, {"LoRA/training seconds": 900}, "LoRA", "QLoRA"),
        ({"latency": 65}, {"RAG/ms a question": 66}, "RAG", "LoRA"),
        ({"voice": "nice"}, {"good prompt/" + c: 100 for c in VALUES if "%" in COLUMNS[c].unit},
         "RAG + LoRA", "RAG + LoRA"),
    ],
)  # fmt: skip
def test_another_cell_makes_another_answer(table, tmp_path, needs, changes, before, after):
    needs = Needs(**needs)
    assert decide(needs, table, "T4").arm == before
    if "good prompt/leak" in changes:  # all of it, but it costs nothing to train
        after = "good prompt"
    assert decide(needs, made(tmp_path, **changes), "T4").arm == after


def test_no_arm_is_named_outside_the_small_tables_about_arms():
    tree = ast.parse(inspect.getsource(decision))
    tables = {"USES", "METHODS", "UNTRIED"}
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and node.targets[0].id in tables):
            texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            assert not {*ARMS} & {text for text in texts if isinstance(text, str)}


def test_an_arm_without_a_cell_has_none_of_it(tmp_path):
    none = made(tmp_path, **{"RAG/poison believed, stuffed": CLOSED})
    assert "stuffed" not in decide(Needs(strangers="yes"), none, "T4").dropped["RAG"]
    words = decide(Needs(changes="monthly"), none, "T4").dropped["prompt"]
    assert "changed fact, after: none, cannot be told, needed 50 %" in words


# --- how sure it is ------------------------------------------------------------------------------


def test_the_row_that_decided_comes_first(table):
    found = decide(Needs(voice="must"), table, "T4")
    assert found.lead == "RAG + LoRA, before LoRA: by right, new wording"
    assert found.rows[0] == ("right, new wording", "62 %", "4 %")
    assert [row[0] for row in found.rows[1:]] == [
        column for column in needed(Needs(voice="must")) if column != "right, new wording"
    ]
    assert found.close == found.thin == ()


def test_a_lead_within_the_intervals_names_the_runner_up_and_the_row(tmp_path):
    changes = {"RAG/training seconds": 150, "RAG/ms a question": 75, "RAG/right, two pages": 36}
    found = decide(Needs(), made(tmp_path, **changes), "T4")
    assert (found.arm, found.runner_up) == ("RAG", "RAG + LoRA")
    assert found.close == ("RAG + LoRA may be as good: 98 % and 90 %, unanswerable, declined",)


@pytest.mark.parametrize(("seconds", "close"), [(170, True), (130, False)])
def test_costs_are_close_within_a_fifth(tmp_path, seconds, close):
    alike = {"LoRA/ms a question": 70, "QLoRA/training seconds": seconds}
    changed = made(tmp_path, **alike)
    found = decide(Needs(strangers="yes"), changed, "T4")
    assert (found.arm, found.rows[0][0]) == ("QLoRA", "training seconds")
    assert bool(found.close) == close


def test_a_drop_within_the_interval_is_called_close(table):
    found = decide(Needs(changes="daily"), table, "T4")
    assert "LoRA is dropped within the interval" in found.close
    found = decide(Needs(changes="daily", secrecy="staff secrets"), table, "T4")
    assert found.close == ()  # the leak drops it whatever the other row is


def test_a_pass_within_the_interval_is_called_close(tmp_path):
    table = made(tmp_path, **{"RAG/changed fact, after": 73})
    found = decide(Needs(changes="daily"), table, "T4")
    assert "RAG passes within the interval of changed fact, after" in found.close


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"facts": "thousands"}, "the table asks about 179 facts, not thousands"),
        ({"facts": "tens"}, "tens of facts fit into a prompt; no arm has them there"),
        (
            {"model": "llama-3.2-1b"},
            "all but the memory is that of embedded; limits of time are not tested",
        ),
        (
            {"strangers": "yes"},
            "no arm had a label for strangers' pages; lesson 7's keeps them out",
        ),
    ],
)
def test_what_the_table_does_not_reach_is_said(table, needs, said):
    assert said in decide(Needs(**needs), table, "L4").thin
    assert decide(Needs(), table, "L4").thin == ()


def test_fewer_than_three_seeds_are_thin(tmp_path):
    two = [line for line in lines() if line["seed"] < 2]
    found = decide(Needs(voice="must"), load_table(write(tmp_path, two)), "T4")
    assert found.thin[0] == "RAG + LoRA was trained with 2 of three seeds"


def test_a_narrow_fit_is_thin(table):
    found = decide(Needs(model="llama-3.1-8b"), table, Card("a card", 10 * GIB, (8, 0)))
    assert found.arm == "QLoRA"
    assert "QLoRA: Fits the a card narrowly and may fail" in found.thin[-1]


def test_where_nothing_passes_it_says_what_to_give_up(table):
    found = decide(Needs(strangers="yes", secrecy="staff secrets"), table, "T4")
    assert (found.arm, found.runner_up, found.rows) == ("", "", ())
    assert found.thin[0] == "the nearest is RAG, which does not meet: strangers"
    assert repr(found).startswith("No arm passes\ndropped: prompt: ")


def test_no_number_is_neither_a_zero_nor_a_reason_and_is_said(tmp_path, table):
    """LoRA is compared by the columns that both have; a bad column of the other one is left out."""
    found = decide(Needs(strangers="yes"), table, "T4")
    assert (found.arm, found.runner_up) == ("LoRA", "QLoRA")
    kinds = [c for c in needed(Needs(strangers="yes")) if c.startswith("poison")]
    assert list(found.thin[:2]) == [f"no number: {c}, LoRA, QLoRA: {CLOSED}" for c in kinds]
    changes = {f"RAG/poison believed, {how}": 9 for how in ("stuffed", "plain")}
    changes |= {f"LoRA/{c}": 2 for c in ("unanswerable, declined", "right, new wording")}
    few = made(tmp_path, **changes | {"QLoRA/right, known wording": 40})
    assert decide(Needs(strangers="yes"), few, "T4").arm == "RAG"  # 9 % are known, and no worse
    assert points("LoRA", compared(["RAG", "LoRA"], Needs(strangers="yes"), few), few) < 0.4


def test_safety_is_not_given_up_for_a_voice(table):
    needs = Needs(letters="none", voice="must", secrecy="staff secrets", hours=0)
    assert "does not meet: voice" in decide(needs, table, "T4").thin[0]


def test_who_asks_for_no_facts_needs_no_pages(table):
    """A voice for letters alone: what is learned from letters."""
    found = decide(Needs(facts="none", pages="no", voice="must"), table, "T4")
    assert found.arm == "LoRA"
    assert decide(Needs(pages="no", voice="must"), table, "T4").arm == ""
    assert "letters" not in decide(Needs(letters="none"), table, "T4").dropped.get("LoRA", "")


def test_a_limit_of_time_is_not_tested_for_a_model_that_was_not_timed(table):
    dropped = decide(Needs(latency=45), table, "L4").dropped
    assert "ms a question" in dropped["RAG"]
    other = decide(Needs(latency=45, model="llama-3.2-1b"), table, "L4").dropped
    assert "RAG" not in other
    none = decide(Needs(hours=0, model="llama-3.2-1b"), table, "L4").dropped
    assert "training seconds" in none["LoRA"]  # to train nothing is no limit of time


def test_to_be_right_is_given_up_last(tmp_path):
    worse = {f"{arm}/unanswerable, declined": 5 for arm in ARMS if "RAG" in arm}
    worse["prompt/unanswerable, declined"] = 100
    needs = Needs(strangers="yes", secrecy="staff secrets")
    found = decide(needs, made(tmp_path, **worse), "T4")
    assert found.thin[0] == "the nearest is RAG, which does not meet: strangers"


def test_the_report_is_at_most_80_characters_wide(grid):
    some = [*grid.values()][::97]
    assert max(len(line) for found in some for line in repr(found).splitlines()) <= 80


def test_an_unknown_card_is_refused(table):
    with pytest.raises(CourseError, match="RTX 3060"):
        decide(Needs(), table, "T5")
