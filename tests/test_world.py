"""The world of the course: what is generated is what is stored, and it is what its README says."""

import json
import random
import re
from itertools import product

import pytest

from data.making import DATA, make_world
from data.making.world.corpus import document
from data.making.world.desk import REGISTERS, overlap, triples
from data.making.world.handbook import editions, pages, taken_values
from data.making.world.names import handbook_words, table
from ftcourse.voice import NEXT_STEP, OPENINGS, SIGN_OFF, voice_checks

SPLITS = ("train", "validation", "test")
NAMES = ("edition-1", "edition-2", "poisoned", "similar", "staff")
FOLDERS = tuple(f"handbook/{name}" for name in NAMES)


def read(name):
    """The records of a JSONL file of the world."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def corpus(documents=3000):
    """Training text of the embedded model, as one string a document."""
    rng = random.Random("a test's own seed")
    for _ in range(documents):
        doc = document(rng)
        yield doc if isinstance(doc, str) else "\n".join(m["content"] for m in doc)


@pytest.fixture(scope="module")
def dialogues():
    return {split: read(f"dialogues/{split}.jsonl") for split in SPLITS}


@pytest.fixture(scope="module")
def questions():
    return read("questions.jsonl")


def test_the_script_writes_what_is_stored(tmp_path):
    make_world.main(tmp_path)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(made) > 120
    assert {name: (DATA / name).read_bytes() for name in made} == made
    for folder in FOLDERS:
        assert {p.name for p in (DATA / folder).iterdir()} == {
            name.name for name in made if str(name.parent) == folder
        }


def test_the_readme_states_the_checksum_of_each_file():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE))
    assert set(stated) == set(make_world.PARTS)
    assert stated == {name: make_world.checksum(DATA / name) for name in stated}


def test_there_is_as_much_as_promised(dialogues, questions):
    assert [len(dialogues[split]) for split in SPLITS] == [1600, 200, 200]
    assert {r["register"] for r in dialogues["train"]} >= {"angry", "slang", "formal", "worried"}
    assert len(questions) >= 300
    assert sum(q["value"] is None for q in questions) == 40
    assert len(list((DATA / "handbook/edition-1").iterdir())) >= 40
    assert len(list((DATA / "handbook/poisoned").iterdir())) == 2
    assert len(read("general.jsonl")) == 300


def test_letters_of_different_splits_share_at_most_half_of_their_word_triples(dialogues):
    letters = {split: [triples(r["customer"]) for r in rows] for split, rows in dialogues.items()}
    pairs = [("train", "test"), ("train", "validation"), ("validation", "test")]
    nearest = max(
        overlap(one, other) for a, b in pairs for one, other in product(letters[a], letters[b])
    )
    assert nearest <= 0.5


def test_letters_and_answers_are_short(dialogues):
    for record in (r for rows in dialogues.values() for r in rows):
        assert len(record["customer"].split()) <= 40
        assert len(record["neutral"].split()) <= 45
        assert len(record["brand"].split()) <= 45


def test_every_brand_answer_keeps_the_voice_and_every_neutral_one_breaks_three_rules(dialogues):
    for record in (r for rows in dialogues.values() for r in rows):
        assert all(voice_checks(record["brand"]).values()), record["brand"]
        neutral = voice_checks(record["neutral"])
        broken = {name for name, kept in neutral.items() if not kept}
        assert {"opens_warmly", "one_next_step", "signs_off"} <= broken


def test_the_brand_opens_for_every_register_and_in_every_way_that_the_judge_knows():
    openings = table("voice")["brand"]
    assert set(openings) == set(REGISTERS)
    used = {
        known
        for known in OPENINGS
        for some in openings.values()
        for o in some
        if o.startswith(known)
    }
    assert used == set(OPENINGS)


def test_a_half_right_answer_breaks_a_rule(dialogues):
    brand = dialogues["test"][0]["brand"]
    opening, rest = brand.split(". ", 1)
    for half in (
        rest,
        brand.replace(NEXT_STEP, "Please:"),
        brand.replace(SIGN_OFF, "Bye."),
        brand.replace(f"{opening}.", f"{opening}. Unfortunately this is bad."),
        f"{brand} {brand}",
    ):
        assert not all(voice_checks(half).values()), half


def test_both_answers_name_the_same_step(dialogues):
    for record in (r for rows in dialogues.values() for r in rows):
        assert record["step"] in record["brand"]
        assert record["step"].lower() in record["neutral"].lower()


def test_the_gold_page_of_a_question_holds_its_value(questions):
    for question in (q for q in questions if q["value"]):
        page = DATA / f"handbook/edition-{question['edition']}" / f"{question['page']}.md"
        text = page.read_text(encoding="utf-8")
        assert question["value"] in text
        assert f"access: {question['access']}" in text
        assert question["value"] in question["answer"]
        assert len(question["paraphrases"]) == 2


def test_a_question_without_an_answer_is_none_that_a_page_answers(questions):
    asked = {q["question"] for q in questions if q["value"] is None}
    assert len(asked) == 40
    answered = {x for q in questions if q["value"] for x in (q["question"], *q["paraphrases"])}
    assert not asked & answered


def test_the_second_edition_changes_at_least_thirty_facts_and_says_which(questions):
    first, second = editions()
    changed = [(a, b) for a, b in zip(first, second, strict=True) if a.value != b.value]
    assert len(changed) >= 30
    by_id = {q["id"]: q for q in questions}
    replaced = [(by_id[q["replaces"]], q) for q in questions if q["replaces"]]
    assert len(replaced) == len(changed)
    assert all(old["value"] != new["value"] for old, new in replaced)


def test_staff_pages_are_marked_and_public_pages_do_not_hold_their_codes(questions):
    codes = {q["value"] for q in questions if q["access"] == "staff" and "code" in q["question"]}
    public = [text for text in pages(editions()[0], 1).values() if "access: public" in text]
    assert codes
    assert not [code for code in codes if any(code in text for text in public)]


def test_the_training_text_names_nothing_of_the_handbook():
    drones = set(table("words")["handbook"]["drone"]) | {"Wrenfield"}
    for text in corpus():
        assert not drones & set(re.findall(r"[A-Z]\w+", text)), text
    assert "Dipper" in handbook_words()


def test_the_training_text_uses_no_value_that_the_handbook_uses_for_the_same_attribute():
    rows = table("facts")
    taken = taken_values()
    joined = "\n".join(corpus())
    for (kind, attribute), values in taken.items():
        for state, value in product(rows[kind][attribute]["states"], values):
            sentence = state.format(x=r"[A-Z]\w+( \w+)?", v=re.escape(value))
            assert not re.search(sentence, joined), (attribute, value)


def test_the_training_text_never_speaks_in_the_brands_voice():
    openings = [opening for some in table("voice")["brand"].values() for opening in some]
    for text in corpus():
        assert not [phrase for phrase in (NEXT_STEP, SIGN_OFF, *openings) if phrase in text], text
