from ftcourse.evaluate import Score
from ftcourse.lookups import (
    find_all,
    first_hits,
    form_of,
    page_recall,
    recall_over_forms,
    recorded_shares,
    value_recall,
)
from ftcourse.retrieval import Chunker, Page, open_store

PAGES = [
    Page("wren-flight", "Wren", "The Wren flies. It stays up for 26 minutes.", "public", 1),
    Page("wren-code", "Wren", "The Wren has the code 4711.", "staff", 1),
    Page(
        "dipper-flight", "Dipper", "The Dipper is slow, and it flies for 52 minutes.", "public", 1
    ),
]
ROWS = [
    {"question": "How long does the Wren fly?", "value": "26 minutes", "page": "wren-flight"},
    {"prompt": "Is the Dipper slow?", "value": "52 minutes", "page": "dipper-flight"},
]


def found(by="page", k=2):
    store = open_store(":memory:", None, Chunker(by))
    store.add(PAGES)
    return find_all(store, ROWS, k)


def test_all_questions_are_looked_up_with_the_readers_labels():
    assert {hit.access for hits in found(k=3) for hit in hits} == {"public"}
    assert page_recall(found(), ROWS, 1) == Score(2, 2)


def test_a_page_can_be_found_by_a_chunk_without_the_value():
    sentences = found("sentence")
    assert page_recall(sentences, ROWS, 1) == Score(2, 2)
    assert value_recall(sentences, ROWS, 1) == Score(1, 2)
    assert value_recall(found(), ROWS, 1) == Score(2, 2)


def test_first_hits_are_those_that_are_right_or_those_that_are_not():
    wrong = [ROWS[0] | {"page": "wren-code"}, ROWS[1]]
    assert first_hits(found(), wrong) == {"Is the Dipper slow?": "dipper-flight"}
    assert first_hits(found(), wrong, right=False) == {ROWS[0]["question"]: "wren-flight"}


def test_runs_of_one_name_are_added_and_names_may_hold_settings():
    runs = [{"k": 1, "seed": s, "right": s, "met": 1, "n": 4} for s in range(3)]
    shares = recorded_shares(runs, "k = {k}", right="right", met="seed {seed}")
    assert shares["k = 1"]["right"] == Score(3, 12)
    assert shares["k = 1"]["seed 2"] == Score(1, 4)
    both = recorded_shares(runs, "k = {k}", shares, met="met")["k = 1"]
    assert next(iter(both)) == "right"
    assert both["met"] == Score(3, 12)
    runs = [{"number": n, "right": n, "n": 4} for n in (None, 1)]
    runs[0]["right"] = 2
    assert recorded_shares(runs, "all", over="number", right="right")["all"]["right"] == Score(3, 8)


def test_a_form_is_the_question_without_names_and_numbers():
    assert form_of("Who repairs the Wren?") == form_of("Who repairs the Old Mill?")
    assert form_of("What is E17?") == form_of("What is E4?")
    assert form_of("How fast is the Wren?") != form_of("How fast does the Wren fly?")


def test_questions_that_are_hit_together_have_a_wide_interval():
    hits, drones = found()[0][:1], [f"D{n}" for n in range(100)]
    rows = [{"question": f"How long does the {d} fly?", "page": "wren-flight"} for d in drones]
    rows += [{"question": f"How fast is the {d}?", "page": "dipper-flight"} for d in drones]
    forms, low, high = recall_over_forms([hits] * 200, rows, 1)
    assert (forms, low, high) == (2, 0.0, 1.0)  # one form is hit and one is missed: nothing known
    single = [row | {"question": f"{row['question']} {n * 'very '}"} for n, row in enumerate(rows)]
    forms, low, high = recall_over_forms([hits] * 200, single, 1)
    assert forms == 200
    assert abs(low - Score(100, 200).interval[0]) < 0.01
    assert abs(high - Score(100, 200).interval[1]) < 0.01
