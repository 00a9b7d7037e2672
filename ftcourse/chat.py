"""Dialogues as tokens: training and asking write a prompt in the same way.

A model that learned from one form of prompt answers badly to another, and nothing warns about it.
So both use ``encode_prompt`` here.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.errors import CourseError
from ftcourse.records import problem_of_turns
from ftcourse.source import Text

Message = dict[str, str]
"""A turn of a dialogue: ``role`` (system, user or assistant) and ``content``."""

IGNORED = -100
"""The label of a token that the loss ignores (the default of torch's cross entropy)."""


@dataclass(frozen=True)
class Example:
    """A dialogue as token ids, with the label of each: its own id, or IGNORED."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_supervised(self) -> int:
        """Number of tokens that count in the loss."""
        return sum(label != IGNORED for label in self.labels)


def encode_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token ids of a dialogue, up to the start of the assistant's next answer."""
    return tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_dict=False
    )


def encode_dialogue(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
) -> Example:
    """Return an Example in which only the answers teach."""
    ids, labels = [], []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = encode_prompt(messages[:turn], tokenizer)
        whole = tokenizer.apply_chat_template(
            list(messages[: turn + 1]),
            return_dict=False,
        )
        start = len(prompt)
        if whole[:start] != prompt or prompt[: len(ids)] != ids:
            raise CourseError(
                "A chat template only adds to earlier turns.",
                "a template that rewrites earlier turns",
                "Train on one question and one answer each.",
            )
        labels += [IGNORED] * (start - len(ids)) + whole[start:]
        ids = whole
    return Example(ids, labels)


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> Example:
    """Return plain text as an Example in which every token is supervised, and so is its end."""
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    words = tokenizer(text, add_special_tokens=False).input_ids
    ids = [*begin, *words, tokenizer.eos_token_id]
    return Example(ids, ids)


def supervised_text(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of the supervised tokens: what the model is trained to say."""
    return tokenizer.decode([label for label in example.labels if label != IGNORED])


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    question: str | Sequence[Message],
    max_new_tokens: int = 80,
) -> Text:
    """Return the model's answer to a question or a dialogue, without sampling."""
    if isinstance(question, str):
        question = [{"role": "user", "content": question}]
    if problem := problem_of_turns(question):
        must = "A question has words, and a dialogue is a list of messages."
        raise CourseError(must, problem, "Ask in a whole sentence.")
    return Text(reply_all(model, tokenizer, [question], max_new_tokens)[0])


def bars_are_off() -> bool:
    """Whether TQDM_DISABLE is set; tqdm's own bar for notebooks does not look at it."""
    return os.environ.get("TQDM_DISABLE") == "1"


def show_progress(items: Sequence, name: str) -> tqdm:
    """Return the items with a bar while they are worked on, for two items or more."""
    return tqdm(items, name, leave=False, disable=len(items) < 2 or bars_are_off())


@torch.inference_mode()
def reply_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Sequence[Message]],
    max_new_tokens: int = 80,
    batch_size: int = 32,
    begins: Sequence[str] | None = None,
) -> list[str]:
    """Return the model's answer to each dialogue, or its continuation of ``begins``."""
    prompts = [encode_prompt(messages, tokenizer) for messages in dialogues]
    for prompt, begin in zip(prompts, begins or [""] * len(prompts), strict=True):
        prompt += tokenizer(begin, add_special_tokens=False).input_ids
    model.eval()
    answers = []
    for start in show_progress(range(0, len(prompts), batch_size), "answers"):
        batch = tokenizer.pad(
            {"input_ids": prompts[start : start + batch_size]},
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        written = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        new = written[:, batch["input_ids"].shape[1] :]
        answers += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return answers
