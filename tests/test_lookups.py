from ftcourse.evaluate import Score
from ftcourse.lookups import (
    find_all,
    first_hits,
    page_recall,
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
