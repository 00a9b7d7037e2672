from ftcourse.config import FinetuneConfig
from ftcourse.evaluate import answer_all
from ftcourse.handbook import (
    fact_score,
    holds_value,
    load_pages,
    load_questions,
    question_prompt,
)
from ftcourse.models import load_base


def test_every_question_comes_with_the_page_that_holds_its_answer():
    questions, pages = load_questions(), load_pages()
    assert (len(questions), len(pages)) == (239, 61)
    for record in questions:
        assert holds_value(record["value"], record["prompt"])
        assert record["prompt"].startswith(f"Passages:\n[1] {pages[record['page']]}\n\nQuestion: ")
        assert holds_value(record["value"], record["completion"])


def test_closed_book_a_question_tells_nothing():
    for wording in range(3):
        for record in load_questions(passages=False, wording=wording):
            assert not holds_value(record["value"], record["prompt"])


def test_three_wordings_ask_for_the_same_fact():
    first, *others = (load_questions(passages=False, wording=n) for n in range(3))
    for other in others:
        assert [r["value"] for r in other] == [r["value"] for r in first]
        assert all(a["prompt"] != b["prompt"] for a, b in zip(first, other, strict=True))


def test_passages_are_numbered():
    assert question_prompt("Why?", ["a", "b"]) == "Passages:\n[1] a\n[2] b\n\nQuestion: Why?"


def test_a_value_inside_another_is_not_the_value():
    assert not holds_value("6 minutes", "It flies for 26 minutes.")
    records = [{"value": "77 km/h"}, {"value": "13 m/s"}]
    assert fact_score(["It reaches 77 km/h.", "No idea."], records).successes == 1


def test_the_embedded_model_reads_most_pages(tokenizer):
    records = load_questions()[:60]
    answers = answer_all(load_base(FinetuneConfig()), tokenizer, records)
    assert fact_score(answers, records).share > 0.9
