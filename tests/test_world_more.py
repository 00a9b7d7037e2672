"""The second part of the world: questions on invented passages, new wordings, other pages."""

import json
import re
from itertools import combinations

import pytest

from data.making import DATA
from data.making.world.handbook import editions
from data.making.world.names import handbook_words, table
from data.making.world.similar import similar_facts
from data.making.world.staff import staff_facts
from ftcourse.errors import CourseError
from ftcourse.handbook import (
    holds_value,
    load_attacks,
    load_pages,
    load_reading,
    load_staff_questions,
    load_two_pages,
    load_wordings,
)
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


def pages_of(folder):
    """The texts of a folder of the handbook, by the id of the page."""
    files = sorted((DATA / "handbook" / folder).iterdir())
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


@pytest.fixture(scope="module")
def public_text():
    texts = [t for f in ("edition-1", "edition-2", "similar") for t in pages_of(f).values()]
    return "\n".join(text for text in texts if "access: public" in text)


def test_each_drone_has_a_mini_a_pro_and_an_xl_with_other_values():
    facts, wanted = similar_facts(), {fact.page for fact in similar_facts()}
    assert len(facts) == 10 * 3 * 16
    assert set(pages_of("similar")) == wanted
    assert len(wanted) == 120
    for fact in first_and_second():
        others = [
            one.value
            for one in facts
            if one.attribute == fact.attribute and one.subject.startswith(f"{fact.subject} ")
        ]
        assert len(set(others)) == 3
        assert fact.value not in others


def first_and_second():
    """The drones' facts in both editions."""
    return [fact for facts in editions() for fact in facts if fact.kind == "drone"]


def test_pages_of_all_folders_have_different_names():
    names = [name for f in ("edition-1", "similar", "staff", "poisoned") for name in pages_of(f)]
    assert len(set(names)) == len(names) == 61 + 120 + 20 + 2


def test_no_public_page_states_a_value_of_the_staff(public_text):
    assert all("access: staff" in text for text in pages_of("staff").values())
    assert len(staff_facts()) == 80
    for fact in staff_facts():
        assert not holds_value(fact.value, public_text), fact
        assert holds_value(fact.value, pages_of("staff")[fact.page])


def test_no_training_text_uses_a_word_of_the_staffs_pages():
    tables = ("facts", "prose", "issues", "voice")
    text = json.dumps([table(name) for name in tables] + [table("words")["invented"]])
    for pool in ("boss", "tool", "successor"):
        assert not [word for word in table("staff")["words"][pool] if holds_value(word, text)]


def test_staff_questions_are_answered_by_their_pages():
    records = load_staff_questions()
    assert len(records) == 60
    assert all(record["access"] == "staff" for record in records)
    for record in records:
        assert holds_value(record["value"], record["prompt"].rpartition("\n\nQuestion:")[0])
        assert holds_value(record["value"], record["completion"])
    prompts = {r["prompt"] for wording in range(3) for r in load_staff_questions(False, wording)}
    assert len(prompts) == 180


def test_a_two_page_question_cannot_be_answered_from_one_page():
    pages = {**pages_of("edition-1"), **pages_of("staff")}
    records = load_two_pages()
    assert [len(records), sum(r["access"] == "public" for r in records)] == [80, 40]
    for record in records:
        first, second = (pages[name] for name in record["pages"])
        if record["access"] == "staff":  # the first page names the second, which has the value
            subject = second.partition("\n# ")[2].partition("\n")[0].split(" ", 1)[1]
            name = subject.removesuffix(" workshop").removeprefix("supplier ")
            assert holds_value(name, first)
            assert not holds_value(name, record["question"])
            assert not holds_value(record["value"], first)
            assert holds_value(record["value"], second)
        else:
            assert holds_value(record["value"], first) != holds_value(record["value"], second)


def test_the_value_of_a_comparison_is_the_larger_number():
    facts = {(fact.page, fact.value): fact for fact in editions()[0]}
    for record in load_two_pages():
        if record["access"] == "public":
            winner = next(
                facts[page, record["value"]]
                for page in record["pages"]
                if (page, record["value"]) in facts
            )
            numbers = [
                int(fact.value.split()[0])
                for fact in editions()[0]
                if fact.page in record["pages"] and fact.attribute == winner.attribute
            ]
            assert int(record["value"].split()[0]) == max(numbers) > min(numbers)
            assert winner.subject in record["completion"]


def test_a_false_value_is_never_true_for_its_subject():
    rows = load_attacks()
    subjects = {row["page"] for row in rows}
    assert len(rows) == 207
    for page in subjects:
        own = [fact for facts in editions() for fact in facts if fact.page == page]
        kind = {fact.subject for fact in own}
        true = {fact.value for facts in editions() for fact in facts if fact.subject in kind}
        false = {row["false_value"] for row in rows if row["page"] == page}
        assert not true & false


def test_attacks_are_three_kinds_of_pages():
    for row in load_attacks():
        for kind in ("stuffed", "plain"):
            assert holds_value(row["false_value"], row[kind])
            assert not holds_value(row["value"], row[kind])
        assert row["question"] in row["stuffed"]
        assert holds_value(row["value"], row["order"])
        assert row["obeyed"] in row["order"]


def test_no_order_of_the_attacks_is_trained_and_no_phrase_is_said_elsewhere():
    orders = table("orders")
    assert not set(orders["attacks"]) & set(orders["trained"])
    assert len(orders["attacks"]) >= 5
    answers = [record["completion"] for record in load_reading("train")]
    assert not [p for p in orders["phrases"] if any(p in answer for answer in answers)]


def test_the_loaders_refuse_what_is_not_there():
    for call in (
        lambda: load_pages(also=["secret"]),
        lambda: load_reading("dev"),
        lambda: load_reading("test", "loud"),
        lambda: load_staff_questions(wording=3),
    ):
        with pytest.raises(CourseError):
            call()
    assert len(load_pages(2, also=("similar", "staff"))) == 61 + 120 + 20
