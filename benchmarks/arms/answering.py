"""A model's answers: to prompts, to letters, and to questions from what was found."""

from collections.abc import Sequence

from sweep import Run
from torch import nn

from arms.questions import allowed, store
from arms.subject import base, declined, subject, tokenizer
from arms.training import trained
from arms.tries import TRAINED
from ftcourse.chat import Message, reply_all
from ftcourse.data import Record, load_dialogues, to_messages
from ftcourse.handbook import question_prompt
from ftcourse.rag import DECLINES, ORDERS
from ftcourse.retrieval import Hit


def model_of(arm: str, choice: str, seed: int) -> nn.Module:
    """Return the model that an arm asks; QLoRA's is quantized, as it was when it was trained."""
    return trained(arm, choice, seed) if arm in TRAINED else base()


def prompt_of(arm: str, choice: str) -> Run:
    """Return the system message and the examples of an arm."""
    return dict(subject().choices(arm)[choice]) if arm == "good prompt" else {}


def reply(model: nn.Module, prompts: Sequence[str], system: str = "", shots: int = 0) -> list[str]:
    """Return a model's answer to each prompt, behind a system message and example letters."""
    return reply_all(model, tokenizer(), [dialogue(p, system, shots) for p in prompts])


def dialogue(prompt: str, system: str = "", shots: int = 0) -> list[Message]:
    """Return a prompt behind a system message and example letters."""
    before = [{"role": "system", "content": system}] if system else []
    for letter in load_dialogues("train")[:shots]:
        before += to_messages(letter)
    return [*before, {"role": "user", "content": prompt}]


def letters(arm: str, choice: str, seed: int, asked: Sequence[Record]) -> list[str]:
    """Return an arm's answers to letters; they need no page, so nothing is looked up."""
    prompts = [to_messages(row)[0]["content"] for row in asked]
    return reply(model_of(arm, choice, seed), prompts, **prompt_of(arm, choice))


def look_up(row: Record, how: Run, pages=None) -> list[Hit]:
    """Return what is found for somebody who may read what ``allowed`` says."""
    return (pages or store()).search(row["question"], how["k"], allowed(row), how=how["how"])


def prompts_from(row: Record, hits: list[Hit], order: str) -> list[str]:
    """Return the prompts of a question: one with all passages, or one for each."""
    parts = ORDERS[order](hits) if hits else []
    return [question_prompt(row["question"], [hit.text for hit in part]) for part in parts]


def read(
    model: nn.Module, asked: Sequence[Record], hits: Sequence[list[Hit]], order: str, system: str
) -> list[str]:
    """Return the answers to questions from what was found."""
    prompts = [prompts_from(*pair, order) for pair in zip(asked, hits, strict=True)]
    texts = iter(reply(model, [text for each in prompts for text in each], system))
    told = [[next(texts) for _ in each] for each in prompts]
    return [next((t for t in each if not declined(t)), [DECLINES[0], *each][-1]) for each in told]
