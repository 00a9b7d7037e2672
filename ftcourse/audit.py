"""Looks at training data before the first step: what is broken, cut, there twice, or leaked."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from ftcourse.chat import IGNORED
from ftcourse.data import as_records, check_data, encode_record, to_messages
from ftcourse.errors import check_kind
from ftcourse.files import user_path
from ftcourse.readers import Unreadable, read_file
from ftcourse.records import Record, problem_of, renaming, taught

NEAR = 0.5
"""Two texts with more than this share of three-word runs in common are near duplicates."""
_SHOWN = 3  # of each kind of finding, so many are named
Runs = frozenset[tuple[str, ...]]


class Problem(NamedTuple):
    """A place of a file, or a record's number, with what is wrong there."""

    place: str
    words: str


class Pair(NamedTuple):
    """Two records with the same question or nearly so; records count from 1."""

    record: int
    earlier: int
    """The record of the same data before it; for a leak, the record of the training data."""
    share: float
    """Share of three-word runs in common (Jaccard index); 1 for the same words."""
    same_answer: bool


def find_problems(data: str | Path | Iterable[Record]) -> list[Problem]:
    """Return all that is wrong in a file of records, or in a list or Dataset of them, by place.

    ``load_records`` refuses the first of these. Raises CourseError if the file cannot be read.
    """
    if isinstance(data, str | Path):
        placed = read_file(user_path(data))
    else:
        check_data(data)
        placed = ((f"record {number}", record) for number, record in enumerate(data, 1))
    found = (Problem(place or "the file", _wrong(record)) for place, record in placed)
    return [problem for problem in found if problem.words]


def _wrong(record: object) -> str:
    if isinstance(record, Unreadable):
        return str(record)
    return ". ".join(filter(None, (problem_of(record), renaming(record))))


@dataclass(frozen=True)
class Audit:
    """What training data holds; its repr is a report. Records count from 1."""

    lengths: tuple[int, ...]
    """Tokens of each record, before anything is cut."""
    max_length: int
    cut: tuple[int, ...]
    """Records that lose the end of their answer, and keep its beginning."""
    left_out: tuple[int, ...]
    """Records whose answer begins after max_length, so that nothing is left to learn from."""
    duplicates: tuple[Pair, ...]
    near_duplicates: tuple[Pair, ...]
    leaks: tuple[Pair, ...]
    """Held-out records whose question the training data asks too: ``record`` is held out."""

    @property
    def conflicts(self) -> tuple[Pair, ...]:
        """Pairs of records with the same question and different answers."""
        return tuple(pair for pair in self.duplicates if not pair.same_answer)

    def __repr__(self) -> str:
        """Return the report: one line for each kind of finding."""
        low, high = min(self.lengths, default=0), max(self.lengths, default=0)
        middle = median(self.lengths or [0])
        pairs = {
            "same question twice": self.duplicates,
            "same question, other answer": self.conflicts,
            "nearly the same question": self.near_duplicates,
            "held out, but in the training data": self.leaks,
        }
        return "\n".join(
            [
                f"{len(self.lengths):,} records of {low} to {high} tokens, median {middle:.0f}",
                _line(f"cut at {self.max_length} tokens", self.cut),
                _line("left out, as no answer is left", self.left_out),
                *(
                    _line(name, [f"{p.record} as {p.earlier}" for p in found])
                    for name, found in pairs.items()
                ),
            ]
        )


def _line(name: str, found: Sequence[object]) -> str:
    names = ", ".join(map(str, found[:_SHOWN])) + ", ..." * (len(found) > _SHOWN)
    return f"{name:36}{len(found):6,}" + f"   {names}" * bool(found)


def audit(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    held_out: Iterable[Record] = (),
) -> Audit:
    """Return what training data holds, and which records of ``held_out`` it already asks.

    A record is compared by what the model is asked: the user's words, or the plain text. Each is
    paired with at most one earlier record.
    """
    check_kind("max_length", max_length, int, "512")
    own, held = as_records(records), as_records(held_out)
    examples = [encode_record(record, tokenizer, n) for n, record in enumerate(own, 1)]
    lengths = tuple(len(example.input_ids) for example in examples)
    longer = [n for n, length in enumerate(lengths, 1) if length > max_length]
    silent = {n for n in longer if not set(examples[n - 1].labels[:max_length]) - {IGNORED}}
    pairs = find_pairs(own)
    return Audit(
        lengths,
        max_length,
        tuple(n for n in longer if n not in silent),
        tuple(sorted(silent)),
        tuple(pair for pair in pairs if pair.share == 1),
        tuple(pair for pair in pairs if pair.share < 1),
        tuple(find_pairs(held, own)),
    )


def question_of(record: Record) -> str:
    """Return what a record asks: all the user's words, or the plain text."""
    if "text" in taught(record):
        return record["text"]
    asked = [m["content"] for m in to_messages(record) if m["role"] == "user"]
    return "\n".join(asked)


def word_runs(text: str) -> Runs:
    """Return the three-word runs of a text; of a shorter text, all its words as one.

    >>> sorted(word_runs("The rotor of the Wren."))
    [('of', 'the', 'wren'), ('rotor', 'of', 'the'), ('the', 'rotor', 'of')]
    """
    words = _words(text)
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([words])


def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case, without punctuation."""
    return tuple(re.findall(r"\w+", text.lower()))


class _Asked(NamedTuple):
    """What is compared of a record."""

    words: tuple[str, ...]
    runs: Runs
    answer: object

    @classmethod
    def by(cls, record: Record) -> "_Asked":
        question = question_of(record)
        answer = None if "text" in taught(record) else to_messages(record)[-1]["content"].split()
        return cls(_words(question), word_runs(question), answer)


def find_pairs(records: Sequence[Record], others: Sequence[Record] | None = None) -> list[Pair]:
    """Return the records whose question one of the others asks, in the same or nearly same words.

    Without ``others``, a record is compared with those before it. Each gets one pair at most.
    """
    own = [_Asked.by(record) for record in records]
    old = own if others is None else [_Asked.by(record) for record in others]
    index, pairs = _Index([*own, *old]), []
    for each in old if others is not None else ():
        index.add(each)
    for number, each in enumerate(own, 1):
        if found := index.find(each):
            earlier, share = found
            same = old[earlier].answer == each.answer
            pairs.append(Pair(number, earlier + 1, share, same))
        if others is None:
            index.add(each)
    return pairs


class _Index:
    """Finds an earlier text with more than NEAR of its three-word runs in common with a new one.

    Two such texts share one of their rarest runs, if each leaves out less than NEAR of its own
    (prefix filter: Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", 2007). So a
    text is compared only with those that a rare run names, and not with all.
    """

    def __init__(self, texts: Iterable[_Asked]) -> None:
        """Count how rare each run is; nothing is found before it was added."""
        self._count = Counter(run for text in texts for run in text.runs)
        self._same: dict[tuple[str, ...], int] = {}
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._runs: list[Runs] = []

    def add(self, text: _Asked) -> None:
        number = len(self._runs)
        self._runs.append(text.runs)
        if self._same.setdefault(text.words, number) == number:  # of equal texts the first counts
            for run in self._rarest(text.runs):
                self._holders[run].append(number)

    def find(self, text: _Asked) -> tuple[int, float] | None:
        """Return the number of the same text, or else of the first similar one, and the share."""
        if text.words in self._same:
            return self._same[text.words], 1.0
        seen = set()
        for number in (n for run in self._rarest(text.runs) for n in self._holders[run]):
            if number not in seen:
                seen.add(number)
                both, other = len(text.runs & self._runs[number]), self._runs[number]
                share = both / (len(text.runs) + len(other) - both)
                if share > NEAR:
                    return number, min(share, 0.99)  # the same runs in another order
        return None

    def _rarest(self, runs: Runs) -> list[tuple[str, ...]]:
        order = sorted(runs, key=lambda run: (self._count[run], run))
        return order[: len(runs) - ceil(NEAR * len(runs)) + 1]
