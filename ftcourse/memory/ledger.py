"""Whose bytes they are: the tensors of a step, when each lived, and which live at one moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

PARTS = ("weights", "gradients", "optimizer", "activations", "overhead")


@dataclass(frozen=True)
class Row:
    """Tensors of one name, shape and format that live at the same time."""

    name: str
    """Where the tensor was made, in transformers' words; ``*`` stands for the layers' numbers."""
    shape: tuple[int, ...]
    dtype: str
    part: str
    """One of ``PARTS``."""
    bytes: int
    """Bytes of one such tensor."""
    count: int = 1
    """How many of them live."""


class Ledger(tuple[Row, ...]):
    """The tensors that live at one moment, the largest sum first. Its repr is a table."""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Ledger":
        """Return rows as a ledger in which equal tensors are one row.

        >>> one = Row("model.norm", (4, 8), "float32", "activations", 128)
        >>> Ledger.of([one, one])
        bytes  count  part         dtype    shape  name
          256      2  activations  float32  4 x 8  model.norm
          256         in all
        """
        counts: dict[tuple, int] = {}
        for row in rows:
            facts = row.name, row.shape, row.dtype, row.part, row.bytes
            counts[facts] = counts.get(facts, 0) + row.count
        found = [Row(*facts, count) for facts, count in counts.items() if count]
        return cls(sorted(found, key=lambda row: -row.bytes * row.count))

    @property
    def parts(self) -> dict[str, int]:
        """The bytes of each part, in the order of ``PARTS``."""
        sizes = dict.fromkeys(PARTS, 0)
        for row in self:
            sizes[row.part] += row.bytes * row.count
        return sizes

    def __repr__(self) -> str:
        """Return a table with one line for each row, and the sum."""
        head = ("bytes", "count", "part", "dtype", "shape", "name")
        lines = [
            (f"{r.bytes * r.count:,}", f"{r.count:,}", r.part, r.dtype, _sides(r.shape), r.name)
            for r in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        total = f"{sum(self.parts.values()):>{widths[0]},}  {'':>{widths[1]}}  in all"
        return "\n".join([*(_line(line, widths) for line in (head, *lines)), total])


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _line(words: Iterable[str], widths: Iterable[int]) -> str:
    right = 2  # numbers stand on the right of their columns
    cells = [
        f"{w:>{n}}" if i < right else f"{w:<{n}}"
        for i, (w, n) in enumerate(zip(words, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


class History:
    """The births and deaths of tensors in order of time, with names for some of the moments."""

    def __init__(self) -> None:
        """Start with nothing alive."""
        self.rows: list[Row] = []
        self.events: list[tuple[int, int]] = []
        """A row's number, and the change in bytes: its birth or its death."""
        self.marks: list[tuple[str, int]] = []

    def born(self, row: Row) -> int:
        """Note a birth and return the number of the row."""
        self.rows.append(row)
        self.events.append((len(self.rows) - 1, row.bytes * row.count))
        return len(self.rows) - 1

    def died(self, number: int) -> None:
        """Note a death."""
        row = self.rows[number]
        self.events.append((number, -row.bytes * row.count))

    def mark(self, name: str) -> None:
        """Name what follows; what has no name is never looked at."""
        self.marks.append((name, len(self.events)))

    def timeline(self) -> list[dict[str, int]]:
        """Return the live bytes of each part after each event."""
        live, moments = dict.fromkeys(PARTS, 0), []
        for number, change in self.events:
            live[self.rows[number].part] += change
            moments.append(dict(live))
        return moments

    def tops(self) -> dict[str, int]:
        """Return, for each name, the event after which the most lives."""
        sums, found = self._sums(), {}
        ends = [start for _, start in self.marks[1:]] + [len(self.events)]
        for (name, start), end in zip(self.marks, ends, strict=True):
            if name and end > start:
                events = [found.get(name, start), *range(start, end)]
                found[name] = max(events, key=sums.__getitem__)
        return found

    def fullest(self) -> tuple[str, int]:
        """Return the name and the event after which the most of all lives."""
        sums = self._sums()
        return max(self.tops().items(), key=lambda item: sums[item[1]])

    def peaks(self) -> dict[str, Ledger]:
        """Return, for each name, what lives at its fullest moment."""
        return {name: self.ledger(event) for name, event in self.tops().items()}

    def _sums(self) -> list[int]:
        return list(accumulate(change for _, change in self.events))

    def ledger(self, event: int) -> Ledger:
        """Return what lives after an event, counted from 0."""
        live = {}
        for number, change in self.events[: event + 1]:
            if change < 0:
                del live[number]
            else:
                live[number] = self.rows[number]
        return Ledger.of(live.values())
