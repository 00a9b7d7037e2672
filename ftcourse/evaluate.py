"""Judges a model on data that it was not trained on: its loss, its answers, their advice."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.chat import IGNORED, Example, encode_text, reply_all, show_progress
from ftcourse.data import encode, to_messages
from ftcourse.errors import CourseError
from ftcourse.records import Record


@dataclass(frozen=True)
class Score:
    """A share of successes, with its 95 % interval (Wilson, 1927)."""

    successes: int
    count: int

    def __post_init__(self) -> None:
        """Refuse a share of nothing."""
        if self.count < 1:
            raise CourseError("A score is a share of some answers.", "no answer", "Give some.")

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
        low, high = (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
        return max(low, 0.0), min(high, 1.0)  # rounding would make it -0 % of none

    def __repr__(self) -> str:
        """Return the share in percent, with its interval and the count."""
        low, high = self.interval
        return f"{self.share:.0%} of {self.count} (95 % interval {low:.0%} to {high:.0%})"


def check_pairs(answers: Sequence[str], records: Sequence[Record]) -> None:
    """Refuse answers that are not as many as the records that were asked."""
    if len(answers) != len(records):
        raise CourseError(
            "Each record has one answer.",
            f"{len(answers)} answers to {len(records)} records",
            "Give the answers of answer_all(model, tokenizer, records).",
        )


def advice_score(answers: Sequence[str], records: Sequence[Record], part: str = "step") -> Score:
    """Return the share of answers with the desk's own ``step`` (advice) or ``reason`` in them."""
    check_pairs(answers, records)
    pairs = zip(answers, records, strict=True)
    return Score(sum(r[part].lower() in answer.lower() for answer, r in pairs), len(records))


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    begins: Sequence[str] | None = None,
) -> list[str]:
    """Return the model's answer to each record's question, or how it goes on from a beginning."""
    questions = [to_messages(record)[:-1] for record in records]
    return reply_all(model, tokenizer, questions, begins=begins)


def held_out_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    max_length: int = 512,
) -> float:
    """Return the mean loss of an answer token, in nats, over records that were not trained on."""
    return _mean_loss(model, encode(records, tokenizer, max_length))


def text_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> float:
    """Return the mean loss of a token of plain text, in nats; its exponential is the perplexity.

    On text of the kind that the model first learned from, the loss before and after fine-tuning
    shows how much the model forgot. Each text is a document of its own, with begin and end tokens.
    """
    return _mean_loss(model, [encode_text(text, tokenizer) for text in texts])


@torch.inference_mode()
def _mean_loss(model: PreTrainedModel, examples: Sequence[Example]) -> float:
    """Return the mean loss of a supervised token that has a token before it."""
    model.eval()
    total = count = 0
    for example in show_progress(examples, "loss"):
        ids, labels = torch.tensor([example.input_ids, example.labels], device=model.device)[
            :, None
        ]
        supervised = (labels[:, 1:] != IGNORED).sum().item()
        total += model(input_ids=ids, labels=labels).loss.item() * supervised
        count += supervised
    return total / count
