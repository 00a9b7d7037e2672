"""The second part of the world: questions on invented passages, new wordings, other pages."""

import json
import re
from itertools import combinations

import pytest

from data.making import DATA
from data.making.world.names import handbook_words, table
from ftcourse.handbook import holds_value, load_reading, load_wordings
from ftcourse.voice import voice_checks

SPLITS = ("train", "validation", "test")
STOP_WORDS = """
a an and are at be by can come do does for from get go has have how i in is it many may me much my
of on one our say the to up us we what when where which who will with you your
"""


def read(name):
    """The records of a JSONL file of the world."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def content_words(text):
    """The words of a text that mean something by themselves, in lower case."""
    return set(re.findall(r"\w+", text.lower())) - set(STOP_WORDS.split())


@pytest.fixture(scope="module")
def reading():
    return {split: read(f"reading/{split}.jsonl") for split in SPLITS}


def test_there_is_as_much_reading_as_promised_and_little_of_it_is_silent(reading):
    assert [len(reading[split]) for split in SPLITS] == [3000, 200, 200]
    for rows in reading.values():
        assert sum(row["value"] is None for row in rows) <= 0.12 * len(rows)
        assert {len(row["passages"]) for row in rows} == {1, 2, 3, 4}


def test_both_answers_of_reading_hold_the_value_and_only_one_is_in_the_voice(reading):
    for row in (row for rows in reading.values() for row in rows):
        assert all(voice_checks(row["brand"]).values()), row["brand"]
        assert not voice_checks(row["neutral"])["signs_off"]
        if row["value"] is None:
            assert row["neutral"] == "The passages do not say."
            assert table("reading")["silence"] in row["brand"]
        else:
            assert holds_value(row["value"], row["neutral"])
            assert holds_value(row["value"], row["brand"])
            assert any(holds_value(row["value"], text) for text in row["passages"])


def test_reading_names_nothing_of_the_handbook(reading):
    names = {
        word
        for kind in ("drone", "shop", "plan", "error", "workshop", "supplier")
        for name in table("words")["handbook"][kind]
        for word in name.split()
    }
    assert names <= handbook_words()
    for row in (row for rows in reading.values() for row in rows):
        text = " ".join([*row["passages"], row["question"], row["neutral"]])
        assert not names & set(re.findall(r"\w+", text)), text


def test_the_splits_of_reading_share_no_passage_and_no_question(reading):
    for one, other in combinations(SPLITS, 2):
        for part in (lambda row: row["passages"], lambda row: [row["question"]]):
            texts = [{text for row in reading[s] for text in part(row)} for s in (one, other)]
            assert not texts[0] & texts[1]


def test_reading_is_loaded_in_both_voices():
    brand, neutral = load_reading("test"), load_reading("test", "neutral")
    assert [row["prompt"] for row in brand] == [row["prompt"] for row in neutral]
    assert brand[0]["prompt"].endswith(f"Question: {brand[0]['question']}")
    assert brand[0]["passages"][-1] in brand[0]["prompt"]
    assert all(voice_checks(brand[0]["completion"]).values())


def test_no_new_wording_stands_where_a_model_could_have_learned_it():
    asked = {
        text for row in read("questions.jsonl") for text in (row["question"], *row["paraphrases"])
    }
    asks = {ask for rows in table("facts").values() for row in rows.values() for ask in row["asks"]}
    for rows in table("wordings").values():
        for attribute, forms in rows.items():
            assert len(set(forms)) == 3
            assert not asks & set(forms), attribute
    assert not asked & {record["question"] for record in load_wordings()}


def test_new_wordings_use_other_words_than_those_that_are_known():
    for kind, rows in table("wordings").items():
        assert set(rows) == set(table("facts")[kind])
        for attribute, forms in rows.items():
            known = content_words(" ".join(table("facts")[kind][attribute]["asks"]))
            for form in forms:
                shared = content_words(form) & known - {"x", kind}
                assert not shared, (form, shared)


def test_each_question_of_the_first_edition_has_three_new_wordings():
    rows, records = read("wordings.jsonl"), load_wordings(passages=False)
    first = [q for q in read("questions.jsonl") if q["value"] and q["edition"] == 1]
    assert [row["id"] for row in rows] == [q["id"] for q in first]
    assert [r["prompt"] for r in records] == [text for row in rows for text in row["wordings"]]
    assert {(r["id"], r["value"]) for r in records} == {(q["id"], q["value"]) for q in first}
