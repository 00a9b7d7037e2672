"""Whose bytes they are: the tensors of a step, when each lived, and which live at one moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

PARTS = ("weights", "gradients", "optimizer", "activations", "overhead")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4}
BYTES |= {"uint8": 1, "int8": 1, "bool": 1}
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Tensors of one name, shape and format that live at the same time."""

    name: str
    """Where the tensor was made, in transformers' words; ``*`` stands for the layers' numbers."""
    shape: Shape
    dtype: str
    part: str
    """One of ``PARTS``."""
    bytes: int
    """Bytes of one such tensor."""
    count: int = 1
    """How many of them live."""

    @classmethod
    def of(cls, name: str, shape: Shape, dtype: str, part: str, count: int = 1) -> "Row":
        """Return the row of tensors without gaps between their numbers."""
        return cls(name, shape, dtype, part, prod(shape) * BYTES[dtype], count)


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
        table = [("bytes", "count", "part", "dtype", "shape", "name")]
        for row in self:
            size, shape = f"{row.bytes * row.count:,}", " x ".join(map(str, row.shape))
            table.append((size, f"{row.count:,}", row.part, row.dtype, shape, row.name))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        sides = zip(">><<<<", widths, strict=True)  # numbers stand on the right
        line = "  ".join(f"{{:{side}{width}}}" for side, width in sides)
        total = f"{sum(self.parts.values()):,}", "", "in all", "", "", ""
        return "\n".join(line.format(*cells).rstrip() for cells in [*table, total])


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

    def timeline(self, below: Iterable[Row] = ()) -> list[dict[str, int]]:
        """Return the live bytes of each part after each event; what is below lives all the time."""
        live, moments = Ledger.of(below).parts, []
        for number, change in self.events:
            live[self.rows[number].part] += change
            moments.append(dict(live))
        return moments

    def tops(self) -> dict[str, int]:
        """Return, for each name, the event after which the most lives."""
        sums, found = list(accumulate(change for _, change in self.events)), {}
        for (name, start), (_, end) in pairwise([*self.marks, ("", len(self.events))]):
            if name and end > start:
                events = [found.get(name, start), *range(start, end)]
                found[name] = max(events, key=sums.__getitem__)
        return found

    def fullest(self) -> tuple[str, int]:
        """Return the name and the event after which the most of all lives."""

        def live_bytes(top: tuple[str, int]) -> int:
            return sum(change for _, change in self.events[: top[1] + 1])

        return max(self.tops().items(), key=live_bytes)

    def peaks(self) -> dict[str, Ledger]:
        """Return, for each name, what lives at its fullest moment."""
        return {name: self.ledger(event) for name, event in self.tops().items()}

    def ledger(self, event: int) -> Ledger:
        """Return what lives after an event, counted from 0."""
        live = {}
        for number, change in self.events[: event + 1]:
            if change < 0:
                del live[number]
            else:
                live[number] = self.rows[number]
        return Ledger.of(live.values())
