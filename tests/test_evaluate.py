import pytest
import torch

from ftcourse.chat import encode_text
from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues, read_records
from ftcourse.evaluate import (
    Score,
    advice_score,
    held_out_loss,
    text_loss,
)
from ftcourse.files import course_path
from ftcourse.models import load_base


def test_a_share_comes_with_its_interval():
    score = Score(45, 50)
    low, high = score.interval
    assert 0.75 < low < score.share < high < 1
    assert repr(score) == "90% of 50 (95 % interval 79% to 96%)"
    assert Score(0, 50).interval[0] == pytest.approx(0, abs=1e-9)


@torch.no_grad()
def loss_of(model, example):
    """Return transformers' own mean loss of an example."""
    ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
    return model(input_ids=ids, labels=labels).loss.item()


def test_the_held_out_loss_is_the_mean_over_answer_tokens(tokenizer):
    model = load_base(FinetuneConfig(method="lora"))
    records = load_dialogues("validation")[:3]
    each = [loss_of(model, example) for example in encode(records, tokenizer, 512)]
    tokens = [len(tokenizer(record["completion"]).input_ids) + 1 for record in records]  # the end
    mean = sum(loss * n for loss, n in zip(each, tokens, strict=True)) / sum(tokens)
    assert held_out_loss(model, tokenizer, records) == pytest.approx(mean)


def test_the_loss_of_plain_text_is_a_mean_over_tokens_and_rises_when_the_words_are_shuffled(
    tokenizer,
):
    model = load_base(FinetuneConfig(method="lora"))
    texts = [record["text"] for record in read_records(course_path("data/general.jsonl"))[:3]]
    lengths = [len(tokenizer(text).input_ids) + 1 for text in texts]  # and the end of the text
    each = [loss_of(model, encode_text(text, tokenizer)) for text in texts]
    mean = sum(loss * n for loss, n in zip(each, lengths, strict=True)) / sum(lengths)
    assert text_loss(model, tokenizer, texts) == pytest.approx(mean)
    shuffled = [" ".join(sorted(text.split())) for text in texts]
    assert text_loss(model, tokenizer, shuffled) > 1.5 * mean


@pytest.mark.parametrize("voice", ["brand", "neutral"])
def test_the_desks_own_answers_give_the_advice_and_answers_to_other_questions_do_not(voice):
    records = load_dialogues("test", voice)
    own = [record["completion"] for record in records]
    for part in ("step", "reason"):
        assert advice_score(own, records, part).share == 1
        assert advice_score(own[1:] + own[:1], records, part).share < 0.2
