"""Answers from passages: the model's own where that is the point, a small stand-in elsewhere."""

import pytest

from ftcourse.config import FinetuneConfig
from ftcourse.data import read_records
from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.handbook import holds_value
from ftcourse.models import load_base
from ftcourse.rag import DECLINES, ORDERS, answer, find_page, is_decline
from ftcourse.retrieval import Hit, Page, open_store, read_pages

BOTH = {"public", "staff"}


@pytest.fixture(scope="module")
def model():
    return load_base(FinetuneConfig(model="embedded", method="full", dtype="float32"))


@pytest.fixture(scope="module")
def store():
    with open_store(":memory:") as store:
        store.add(read_pages(course_path("data/handbook/edition-1")))
        yield store


@pytest.fixture(scope="module")
def questions():
    return [row for row in read_records(course_path("data/questions.jsonl")) if row["edition"] == 1]


def hit(page, text):
    return Hit(page, text, 1.0, "public", 1)


def test_most_questions_are_answered_right_with_their_page(model, tokenizer, store, questions):
    asked = [row for row in questions if row["value"]][::12]
    found = [answer(model, tokenizer, store, r["question"], allowed=BOTH) for r in asked]
    right = [holds_value(r["value"], a.text) for r, a in zip(asked, found, strict=True)]
    assert sum(right) >= 0.7 * len(asked)  # 83 % of 60 when it was written
    cited = [a.page == r["page"] for r, a, good in zip(asked, found, right, strict=True) if good]
    assert sum(cited) >= 0.9 * len(cited)


def test_a_question_that_no_page_answers_is_declined_without_a_page(
    model, tokenizer, store, questions
):
    asked = [row for row in questions if not row["value"]][::5]
    for order in ORDERS:
        found = [answer(model, tokenizer, store, r["question"], order=order) for r in asked]
        declined = [a for a in found if a.declined]
        assert len(declined) >= len(asked) - 1
        assert {a.page for a in declined} == {None}
        assert max(len(a.passages) for a in declined) == 3  # all that were read


class Reader:
    """A stand-in: answers from the prompts that hold a word, and keeps the prompts."""

    class config:
        max_position_embeddings = 1024

    def __init__(self, monkeypatch, word):
        self.prompts = []

        def reply_all(model, tokenizer, dialogues, max_new_tokens):
            [[message]] = dialogues
            self.prompts.append(message["content"])
            return ["It flies 26 minutes." if word in message["content"] else DECLINES[0]]

        monkeypatch.setattr("ftcourse.rag.reply_all", reply_all)


def small_store(*texts):
    store = open_store(":memory:")
    store.add([Page(f"p{n}", f"p{n}", text, "public", 1) for n, text in enumerate(texts)])
    return store


TEXTS = ("wren wren wren", "wren wren for 26 minutes", "wren and the longest text of the three")


def test_the_order_is_that_of_the_prompt(monkeypatch, tokenizer):
    reader = Reader(monkeypatch, "26")
    with small_store(*TEXTS) as store:
        ranked = [found.page for found in store.search("wren", 3)]
        assert ranked == ["p0", "p1", "p2"]
        last = answer(reader, tokenizer, store, "wren?")
        first = answer(reader, tokenizer, store, "wren?", order="best first")
        one = answer(reader, tokenizer, store, "wren?", order="one by one")
    assert [p.page for p in last.passages] == ranked[::-1]
    assert [p.page for p in first.passages] == ranked
    assert [p.page for p in one.passages] == ["p1"]
    assert [prompt.count("[") for prompt in reader.prompts] == [3, 3, 1, 1]
    assert reader.prompts[0].index(TEXTS[0]) > reader.prompts[0].index(TEXTS[2])
    assert {a.page for a in (last, first, one)} == {"p1"}
    assert repr(one) == "It flies 26 minutes. [p1]"


def test_tokens_are_those_of_all_prompts_that_were_read(monkeypatch, tokenizer):
    from ftcourse.chat import encode_prompt

    reader = Reader(monkeypatch, "26")
    with small_store(*TEXTS) as store:
        found = answer(reader, tokenizer, store, "wren?", order="one by one")
    dialogues = [[{"role": "user", "content": prompt}] for prompt in reader.prompts]
    assert found.tokens == sum(len(encode_prompt(dialogue, tokenizer)) for dialogue in dialogues)
    assert len(dialogues) == 2


def test_the_reader_never_sees_what_the_asker_may_not(monkeypatch, tokenizer):
    reader = Reader(monkeypatch, "40 euros")
    with open_store(":memory:") as store:
        store.add([Page("cost", "cost", "The Wren costs us 40 euros.", "staff", 1)])
        store.add([Page("wren", "wren", "The Wren flies.", "public", 1)])
        for order in ORDERS:
            found = answer(reader, tokenizer, store, "What does the Wren cost us?", 2, order=order)
            assert found.declined
            assert [p.page for p in found.passages] == ["wren"]
        assert not any("40" in prompt for prompt in reader.prompts)
        asked = answer(reader, tokenizer, store, "What does the Wren cost us?", 2, BOTH)
        assert not asked.declined


def test_where_nothing_is_found_nobody_is_asked(monkeypatch, tokenizer):
    reader = Reader(monkeypatch, "")
    with small_store("wren") as store:
        found = answer(reader, tokenizer, store, "xylophone?", 1)
    assert (found.text, found.declined, found.page, found.tokens) == (DECLINES[0], True, None, 0)
    assert found.passages == []
    assert reader.prompts == []


def test_choices_of_the_search_go_to_the_store(monkeypatch, tokenizer):
    reader = Reader(monkeypatch, "26")
    with open_store(":memory:") as store:
        store.add(
            [Page("wren", "w", f"wren {n} minutes", "public", e) for e, n in ((1, 26), (2, 31))]
        )
        assert answer(reader, tokenizer, store, "wren?", 1, edition=1).page == "wren"
        assert answer(reader, tokenizer, store, "wren?", 1, edition=2).declined
        with pytest.raises(CourseError, match="without embed"):
            answer(reader, tokenizer, store, "wren?", 1, how="dense")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"question": " "}, "A query has a word"),
        ({"k": 0}, "k is 1 to"),
        ({"k": 9}, "k is 1 to 3"),
        ({"order": "worst first"}, "order is one of"),
        ({"allowed": {"Public"}}, "A label is one of"),
    ],
)
def test_bad_choices_are_refused(monkeypatch, tokenizer, choices, said):
    with small_store(*TEXTS) as store, pytest.raises(CourseError, match=said):
        answer(Reader(monkeypatch, ""), tokenizer, store, **({"question": "wren?"} | choices))


def test_a_prompt_longer_than_the_window_is_refused_before_anything_is_read(monkeypatch, tokenizer):
    reader = Reader(monkeypatch, "26")
    with small_store("wren " * 2_000, "wren") as store:
        with pytest.raises(CourseError, match=r"window of 1,024") as error:
            answer(reader, tokenizer, store, "wren?", 2)
        assert "one by one" in error.value.do
    assert reader.prompts == []


def test_each_decline_that_the_model_learned_is_one():
    from data.making.world.corpus import SILENT, UNREAD

    assert {SILENT, UNREAD} <= set(DECLINES)
    brand = [
        row["brand"]
        for row in read_records(course_path("data/reading/test.jsonl"))
        if not row["value"]
    ]
    assert all(is_decline(text) for text in [*brand, SILENT, UNREAD, SILENT.lower()])
    neutral = [
        row["neutral"]
        for row in read_records(course_path("data/reading/test.jsonl"))
        if row["value"]
    ]
    assert not any(is_decline(text) for text in neutral)


def test_the_page_is_that_with_the_words_that_the_question_lacks():
    hits = [hit("a", "The Wren flies 26 minutes."), hit("b", "The Wren flies 31 minutes.")]
    assert find_page("How long does the Wren fly?", "It flies 31 minutes.", hits, hits) == "b"
    assert find_page("How long does the Wren fly?", "It flies minutes.", hits, hits) == "a"
    assert find_page("How long does the Wren fly?", "Yes.", hits, hits) is None
    assert find_page("How long?", "31 minutes", hits, hits[:1]) == "a"
