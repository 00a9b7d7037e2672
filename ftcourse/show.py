"""What a lesson shows of dialogues: questions with answers, and tokens with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill

from transformers import PreTrainedTokenizerBase

from ftcourse.chat import IGNORED, Example
from ftcourse.data import Record, to_messages
from ftcourse.source import hang


@dataclass(frozen=True)
class Transcript:
    """Questions and answers, for a person to read."""

    turns: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, records: Sequence[Record], answers: Sequence[str] | None = None) -> "Transcript":
        """Return the records' questions with a model's answers, or with the records' own."""
        dialogues = [[message["content"] for message in to_messages(r)] for r in records]
        own = [dialogue[-1] for dialogue in dialogues]
        questions = [dialogue[-2] for dialogue in dialogues]
        return cls(tuple(zip(questions, answers or own, strict=False)))

    def __repr__(self) -> str:
        """Return each question with its answer, and an empty line between turns."""
        turns = ((hang("asked     ", q), hang("answered  ", a)) for q, a in self.turns)
        return "\n\n".join(map("\n".join, turns))


@dataclass(frozen=True)
class Tokens:
    """The tokens of an example, with those that are supervised marked."""

    pieces: tuple[tuple[str, bool], ...]
    """The text of each token, and whether it is supervised."""

    def __repr__(self) -> str:
        """Return the tokens between bars, the supervised ones in brackets."""
        marked = [f"[{text}]" if supervised else text for text, supervised in self.pieces]
        return fill("|".join(marked), 80)

    def _repr_html_(self) -> str:
        """Return each token in a box; the supervised ones are blue, the others pale."""
        styles = {True: "background: #0072B2; color: white", False: "opacity: 0.7"}
        box = "border: 1px solid #8888; border-radius: 3px; padding: 0 1px; white-space: pre-wrap"
        spans = [
            f'<span style="{box}; {styles[supervised]}">{escape(text)}</span>'
            for text, supervised in self.pieces
        ]
        return f'<p style="line-height: 1.8">{"<wbr>".join(spans)}</p>'


def show_tokens(example: Example, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Return the tokens of an example as a notebook shows them: in colour where they teach."""
    texts = tokenizer.batch_decode([[token] for token in example.input_ids])
    supervised = [label != IGNORED for label in example.labels]
    return Tokens(tuple(zip(texts, supervised, strict=True)))
