import pytest

from ftcourse.chat import reply, reply_all
from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues, read_records
from ftcourse.evaluate import (
    Score,
    Transcript,
    advice_score,
    held_out_loss,
    text_loss,
)
from ftcourse.files import course_path
from ftcourse.models import load_base, load_tokenizer


def test_a_share_comes_with_its_interval():
    score = Score(45, 50)
    low, high = score.interval
    assert 0.75 < low < score.share < high < 1
    assert repr(score) == "90% of 50 (95 % interval 79% to 96%)"
    assert Score(0, 50).interval[0] == pytest.approx(0, abs=1e-9)


def test_answers_in_a_batch_are_those_given_one_by_one():
    config = FinetuneConfig(method="lora")
    model, tokenizer = load_base(config), load_tokenizer("embedded")
    questions = ["Hello.", "My drone drifts to the left after a crash. What should I do?"]
    together = reply_all(model, tokenizer, [[{"role": "user", "content": q}] for q in questions])
    assert together == [reply(model, tokenizer, question) for question in questions]


def test_the_held_out_loss_is_the_mean_over_answer_tokens():
    config = FinetuneConfig(method="lora")
    model, tokenizer = load_base(config), load_tokenizer("embedded")
    records = load_dialogues("validation")[:3]
    each = [held_out_loss(model, tokenizer, [record]) for record in records]
    assert min(each) <= held_out_loss(model, tokenizer, records) <= max(each)


def test_the_loss_of_plain_text_is_a_mean_over_tokens_and_rises_when_the_words_are_shuffled():
    model, tokenizer = load_base(FinetuneConfig(method="lora")), load_tokenizer("embedded")
    texts = [record["text"] for record in read_records(course_path("data/general.jsonl"))[:3]]
    lengths = [len(tokenizer(text).input_ids) + 1 for text in texts]  # and the end of the text
    each = [text_loss(model, tokenizer, [text]) for text in texts]
    mean = sum(loss * n for loss, n in zip(each, lengths, strict=True)) / sum(lengths)
    assert text_loss(model, tokenizer, texts) == pytest.approx(mean)
    shuffled = [" ".join(sorted(text.split())) for text in texts]
    assert text_loss(model, tokenizer, shuffled) > 1.5 * mean


def test_a_transcript_sets_questions_and_answers_side_by_side():
    records = [
        {"prompt": "Where is it?", "completion": "There."},
        {"prompt": "W", "completion": "T"},
    ]
    assert repr(Transcript.of(records[:1])) == "asked     Where is it?\nanswered  There."
    assert Transcript.of(records, ["Here."]).turns == (("Where is it?", "Here."),)


@pytest.mark.parametrize("voice", ["brand", "neutral"])
def test_the_desks_own_answers_give_the_advice_and_anothers_do_not(voice):
    records = load_dialogues("test", voice)
    own = [record["completion"] for record in records]
    assert advice_score(own, records).share == 1
    assert advice_score(own[1:] + own[:1], records).share < 0.2
