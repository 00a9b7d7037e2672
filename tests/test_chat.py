import copy

import pytest

from ftcourse.chat import (
    IGNORED,
    ask,
    encode_dialogue,
    encode_prompt,
    encode_text,
    reply_all,
    supervised_text,
)
from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.models import load_base


def dialogue(*contents):
    """Return the messages of a dialogue in which the user speaks first."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]


QUESTION = dialogue("Where is my drone?", "It is on its way.")


def test_only_the_answer_is_supervised(tokenizer):
    example = encode_dialogue(QUESTION, tokenizer)
    assert supervised_text(example, tokenizer) == "It is on its way.<|end|>"
    assert all(b in (IGNORED, a) for a, b in zip(example.input_ids, example.labels, strict=True))


def test_training_and_asking_see_the_same_prompt(tokenizer):
    prompt = encode_prompt(QUESTION[:-1], tokenizer)
    example = encode_dialogue(QUESTION, tokenizer)
    assert example.input_ids[: len(prompt)] == prompt
    assert set(example.labels[: len(prompt)]) == {IGNORED}


def test_each_answer_of_a_longer_dialogue_is_supervised(tokenizer):
    example = encode_dialogue(dialogue("Hello.", "Yes?", "Help.", "Gladly."), tokenizer)
    assert supervised_text(example, tokenizer) == "Yes?<|end|>Gladly.<|end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    forgetful = copy.deepcopy(tokenizer)
    forgetful.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(CourseError, match="rewrites earlier turns"):
        encode_dialogue(dialogue("Hello.", "Yes?", "Help.", "Gladly."), forgetful)


def test_every_token_of_plain_text_is_supervised_and_so_is_its_end(tokenizer):
    example = encode_text("The wind fell.", tokenizer)
    assert tokenizer.decode(example.input_ids) == "<|begin|>The wind fell.<|end|>"
    assert example.labels == example.input_ids


def test_answers_in_a_batch_equal_the_answers_to_single_questions(tokenizer):
    model = load_base(FinetuneConfig(method="lora"))
    questions = ["Hello.", "My drone drifts to the left after a crash. What should I do?"]
    together = reply_all(model, tokenizer, [dialogue(question) for question in questions])
    assert together == [ask(model, tokenizer, question) for question in questions]
    assert all(together)


def test_a_beginning_is_put_into_the_models_mouth_and_it_goes_on_from_there(tokenizer):
    model = load_base(FinetuneConfig(method="lora"))
    question = dialogue("My drone drifts to the left after a crash. What should I do?")
    (whole,) = reply_all(model, tokenizer, [question])
    begin, rest = whole.split(". ", 1)
    assert reply_all(model, tokenizer, [question], begins=[f"{begin}."]) == [rest]


@pytest.mark.parametrize("question", ["", "  ", []])
def test_an_empty_question_is_refused(tokenizer, question):
    with pytest.raises(CourseError, match="A question has words"):
        ask(None, tokenizer, question)
