"""An answer from passages: search, read, answer with the page, or decline."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.chat import Message, encode_prompt, reply_all
from ftcourse.errors import CourseError, check_choice
from ftcourse.handbook import question_prompt
from ftcourse.retrieval import Hit, stem_words

MAX_NEW_TOKENS = 80

DECLINES = (
    "The passages do not say.",
    "I do not know that without the handbook.",
    "The handbook is silent on this.",
)
"""What the embedded model was trained to say if it cannot know, without and with the voice."""

ORDERS: dict[str, Callable[[list[Hit]], list[list[Hit]]]] = {
    "best last": lambda hits: [hits[::-1]],
    "best first": lambda hits: [hits],
    "one by one": lambda hits: [[hit] for hit in hits],
}
"""The prompts that an order makes of the hits: each a list."""


@dataclass(frozen=True)
class Answer:
    """An answer with the passages that its prompt held; a decline with all that were read."""

    text: str
    passages: list[Hit]
    declined: bool
    page: str | None
    """The page that the answer rests on; None if the model declined or used no passage."""
    tokens: int
    """Tokens of all prompts that were read."""

    def __repr__(self) -> str:
        """Return the answer with its page."""
        return f"{self.text} [{self.page}]" if self.page else self.text


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: Any,
    question: str,
    k: int = 3,
    allowed: Collection[str] = frozenset({"public"}),
    order: str = "best last",
    declines: Sequence[str] = DECLINES,
    **search: Any,
) -> Answer:
    """Answer a question from the k passages that fit best.

    ``order``: all in one prompt with the best one last or first,
    or "one by one", the best first, until one gives an answer.
    An answer that holds a sentence of ``declines`` is none.
    Other choices, such as ``how`` and ``edition``, go to
    ``store.search``. If it finds nothing, nobody is asked.
    """
    check_choice("order", order, tuple(ORDERS))
    hits = store.search(question, k, allowed, **search)
    text, read, tokens = declines[0], [], 0
    for passages in ORDERS[order](hits) if hits else []:
        texts = [hit.text for hit in passages]
        messages = [{"role": "user", "content": question_prompt(question, texts)}]
        tokens += count_tokens(model, tokenizer, messages)
        text = reply_all(model, tokenizer, [messages], MAX_NEW_TOKENS)[0]
        if not is_decline(text, declines):
            page = find_page(question, text, hits, passages)
            return Answer(text, passages, False, page, tokens)
        read += passages
    return Answer(text, read, True, None, tokens)


def is_decline(text: str, declines: Sequence[str] = DECLINES) -> bool:
    """Return whether a text holds one of the sentences that decline, in any case.

    >>> is_decline("The passages do not say.")
    True
    """
    return any(said.lower() in text.lower() for said in declines)


def find_page(
    question: str, text: str, ranked: Sequence[Hit], passages: Sequence[Hit]
) -> str | None:
    """Return the page of the passage with most words of the answer that are not asked.

    Of equal ones, the one that the search ranked first; None if no passage has such a word.
    """
    asked, told, *read = map(set, stem_words([question, text, *(hit.text for hit in ranked)]))
    shared = {}
    for hit, stems in zip(ranked, read, strict=True):
        if hit in passages:
            shared.setdefault(hit.page, len((told - asked) & stems))
    best = max(shared, key=shared.get, default=None)
    return best if best and shared[best] else None


def count_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, messages: list[Message]
) -> int:
    """Return the tokens of a prompt. Raises CourseError if it leaves no room for an answer."""
    count = len(encode_prompt(messages, tokenizer))
    window = getattr(model.config, "max_position_embeddings", None) or count + MAX_NEW_TOKENS
    if count + MAX_NEW_TOKENS > window:
        raise CourseError(
            f"A prompt and an answer of {MAX_NEW_TOKENS} tokens fit into the model's window of "
            f"{window:,}.",
            f"a prompt of {count:,} tokens",
            'Take a smaller k, cut the pages into shorter chunks, or use order="one by one".',
        )
    return count
