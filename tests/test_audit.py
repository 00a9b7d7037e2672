import random
import time

import pytest

from ftcourse.audit import NEAR, audit, find_pairs, find_problems, word_runs
from ftcourse.data import as_records, load_dialogues
from ftcourse.errors import CourseError


def asked(*questions):
    return [{"prompt": question, "completion": "Yes."} for question in questions]


def test_a_dataset_without_the_columns_says_which_it_has_and_how_to_rename_them():
    from datasets import Dataset

    data = Dataset.from_list([{"question": "Why?", "answer": "Because."}])
    with pytest.raises(CourseError, match="'answer', 'question'") as caught:
        as_records(data)
    assert "rename_columns({'question': 'prompt', 'answer': 'completion'})" in caught.value.do
    renamed = data.rename_columns({"question": "prompt", "answer": "completion"})
    assert as_records(renamed) == [{"prompt": "Why?", "completion": "Because."}]
    assert "rename_columns" in find_problems(data)[0].words
    assert find_problems(renamed) == []


def test_lengths_and_what_is_cut_or_left_out_are_those_of_the_tokens(tokenizer):
    records = load_dialogues("train")[:50]
    whole = audit(records, tokenizer, 512)
    assert (whole.cut, whole.left_out) == ((), ())
    middle = sorted(whole.lengths)[25]
    found = audit(records, tokenizer, middle)
    longer = [n for n, length in enumerate(whole.lengths, 1) if length > middle]
    assert sorted([*found.cut, *found.left_out]) == longer
    assert audit(records, tokenizer, 2).left_out == tuple(range(1, 51))


def test_the_same_question_is_found_whatever_its_capitals_and_blanks(tokenizer):
    records = asked("Does it fly in rain?", "Is the Wren loud at night?", "does it  FLY in rain?")
    records[2]["completion"] = "No."
    found = audit(records, tokenizer, 99)
    assert [pair[:3] for pair in found.duplicates] == [(3, 1, 1)]
    assert found.conflicts == found.duplicates
    assert "3 as 1" in repr(found)


def test_a_held_out_question_that_the_training_data_asks_is_a_leak(tokenizer):
    train = asked("Does the Wren fly in heavy rain?", "How loud is it at night, in decibel?")
    held = asked("What does it weigh?", "Does the Wren fly in heavy rain today?")
    (leak,) = audit(train, tokenizer, 99, held).leaks
    assert (leak.record, leak.earlier) == (2, 1)
    assert leak.share == 5 / 6  # of its six three-word runs


def test_what_no_comparison_of_questions_finds_is_not_promised(tokenizer):
    """A lesson names these: a paraphrase, a copied answer, an exam inside a row of plain text."""
    (held,) = exam = [load_dialogues("test")[0]]
    said = {"completion": held["completion"]}
    missed = [{"prompt": "It is gone. Please help me to find my drone again!"} | said]
    missed.append({"text": f"{held['prompt']} {held['completion']}"})
    assert audit(missed, tokenizer, 512, exam).leaks == ()


def test_the_courses_own_splits_have_no_leak_and_a_planted_one_is_found(tokenizer):
    train, test = load_dialogues("train"), load_dialogues("test")
    assert audit(train, tokenizer, 512, test).leaks == ()
    leaks = audit([*train, test[7]], tokenizer, 512, test).leaks
    assert [(leak.record, leak.earlier) for leak in leaks] == [(8, len(train) + 1)]


def test_the_index_finds_exactly_the_records_that_comparing_all_finds():
    drawn = random.Random(0)
    words = [f"w{n}" for n in range(12)]
    texts = [" ".join(drawn.choices(words, k=drawn.randint(1, 9))) for _ in range(300)]
    texts += [text + " w1" for text in texts[:60]]
    runs = [word_runs(text) for text in texts]
    slow = {
        new + 1
        for new in range(len(runs))
        for old in range(new)
        if len(runs[new] & runs[old]) / len(runs[new] | runs[old]) > NEAR
    }
    found = find_pairs(asked(*texts))
    assert {pair.record for pair in found} == slow
    assert len(slow) > 50
    for pair in found:
        assert pair.earlier < pair.record


def templates(number):
    return f"What does the drone number {number} weigh, and how long does it fly in the rain?"


def letters(number):
    drawn = random.Random(number)
    return " ".join(f"word{drawn.randint(0, 999)}" for _ in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("write", [templates, letters])
def test_ten_thousand_records_are_compared_in_seconds(write):
    begin = time.process_time()
    find_pairs(asked(*map(write, range(10_000))))
    assert time.process_time() - begin < 20


def test_plain_text_and_dialogues_are_audited_too(tokenizer):
    message = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    records = [{"text": "The same text twice."}, {"messages": message}] * 2
    found = audit(records, tokenizer, 99)
    assert [pair[:2] for pair in found.duplicates] == [(3, 1), (4, 2)]
    assert found.conflicts == ()
