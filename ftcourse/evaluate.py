"""Judging a model on dialogues that it was not trained on: its loss, its answers, their advice."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from textwrap import fill

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.chat import Example, encode_text, reply_all
from ftcourse.data import Record, encode, to_messages


@dataclass(frozen=True)
class Score:
    """A share of successes, with its 95 % interval (Wilson, 1927)."""

    successes: int
    count: int

    @property
    def share(self) -> float:
        """Successes divided by count."""
        return self.successes / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The lower and the upper end of the 95 % interval of the share.

        >>> [round(end, 2) for end in Score(8, 10).interval]
        [0.49, 0.94]
        """
        z, n, p = 1.96, self.count, self.share
        middle, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)

    def __repr__(self) -> str:
        """Say the share in percent, with its interval and the count."""
        low, high = self.interval
        return f"{self.share:.0%} of {self.count} (95 % interval {low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class Transcript:
    """Questions and answers side by side; its repr is there to be read."""

    turns: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, records: Sequence[Record], answers: Sequence[str] | None = None) -> "Transcript":
        """Return the records' questions with a model's answers, or with the records' own."""
        dialogues = [[message["content"] for message in to_messages(r)] for r in records]
        own = [dialogue[-1] for dialogue in dialogues]
        questions = [dialogue[-2] for dialogue in dialogues]
        return cls(tuple(zip(questions, answers or own, strict=False)))

    def __repr__(self) -> str:
        """Set each turn as a question and an answer, with an empty line between turns."""
        return "\n\n".join(f"{_wrap('asked   ', q)}\n{_wrap('answered', a)}" for q, a in self.turns)


def _wrap(label: str, text: str) -> str:
    return fill(text, 90, initial_indent=f"{label}  ", subsequent_indent=" " * (len(label) + 2))


def advice_score(answers: Sequence[str], records: Sequence[Record]) -> Score:
    """Return the share of answers that give the advice of the desk's own answer, word for word."""
    right = [
        r["step"].lower() in answer.lower() for answer, r in zip(answers, records, strict=True)
    ]
    return Score(sum(right), len(right))


def answer_all(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, records: Sequence[Record]
) -> list[str]:
    """Return the model's answer to each record's question; the record's own answer is not shown."""
    questions = [to_messages(record)[:-1] for record in records]
    return reply_all(model, tokenizer, questions)


@torch.inference_mode()
def held_out_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    max_length: int = 512,
) -> float:
    """Return the mean loss of an answer token, in nats, over records that were not trained on."""
    model.eval()
    total = count = 0
    for example in encode(records, tokenizer, max_length):
        total += _mean_loss(model, example) * example.num_supervised
        count += example.num_supervised
    return total / count


@torch.inference_mode()
def text_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> float:
    """Return the mean loss of a token of plain text, in nats; its exponential is the perplexity.

    Taken before and after a fine-tuning, on text of the kind that the model learned from, it says
    what was forgotten. Each text stands for itself, with the tokens that begin and end a document.
    """
    model.eval()
    total = count = 0
    for text in texts:
        example = encode_text(text, tokenizer)
        count += len(example.labels) - 1
        total += _mean_loss(model, example) * (len(example.labels) - 1)
    return total / count


def _mean_loss(model: PreTrainedModel, example: Example) -> float:
    ids, labels = (
        torch.tensor([row], device=model.device) for row in (example.input_ids, example.labels)
    )
    return model(input_ids=ids, labels=labels).loss.item()
