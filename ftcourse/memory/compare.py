"""Ledgers side by side: which tensors one of them has and another one lacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from textwrap import fill

from ftcourse.errors import CourseError
from ftcourse.memory.ledger import Ledger, Row

_LONGEST = 27  # columns of a name, so that a line has at most 80


@dataclass(frozen=True)
class Comparison:
    """How many of each tensor several ledgers have. The repr is a table of it."""

    names: tuple[str, ...]
    """The ledgers' names."""
    rows: tuple[tuple[Row, tuple[int, ...]], ...]
    """Each tensor that some ledger has, and how many of it each ledger has, in their order."""

    @property
    def sums(self) -> tuple[int, ...]:
        """The bytes of each ledger."""
        pairs = [[row.bytes * count for count in counts] for row, counts in self.rows]
        return tuple(map(sum, zip(*pairs, strict=True))) or (0,) * len(self.names)

    @property
    def differs(self) -> "Comparison":
        """The rows in which the ledgers differ, the largest difference first."""
        rows = [(row, counts) for row, counts in self.rows if len(set(counts)) > 1]

        def apart(pair: tuple[Row, tuple[int, ...]]) -> int:
            return -pair[0].bytes * (max(pair[1]) - min(pair[1]))

        return Comparison(self.names, tuple(sorted(rows, key=apart)))

    def top(self, count: int) -> "Comparison":
        """Return the first so many rows."""
        return Comparison(self.names, self.rows[:count])

    def __repr__(self) -> str:
        """Return the table: bytes of one tensor, how many each ledger has, and whose they are."""
        if not self.rows:
            return f"no tensor differs between {', '.join(self.names)}"
        said = ", ".join(f"{place} {name}" for place, name in enumerate(self.names, 1))
        table = [("bytes", *map(str, range(1, len(self.names) + 1)), "dtype", "shape", "name")]
        for row, counts in self.rows:
            sides, short = " x ".join(map(str, row.shape)), row.name.replace("model.layers.", "")
            if len(short) > _LONGEST:
                short = f"{short[:13]}…{short[13 - _LONGEST + 1 :]}"
            table.append((f"{row.bytes:,}", *map(str, counts), row.dtype, sides, short))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        right = 1 + len(self.names)  # columns of numbers stand on the right
        lines = [
            "  ".join(
                f"{cell:{'<>'[place < right]}{width}}"
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()
            for cells in table
        ]
        pairs = zip(self.names, self.sums, strict=True)
        sums = ", ".join(f"{name} {size:,}" for name, size in pairs)
        ends = fill(f"how many in {said}", 80), fill(f"bytes of these rows: {sums}", 80)
        return "\n".join([ends[0], *lines, ends[1]])

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape(repr(self))}</p>"
        head = ["bytes of one", *self.names, "part", "dtype", "shape", "made by, or name"]
        lines = []
        for row, counts in self.rows:
            bold = "b" if len(set(counts)) > 1 else "span"
            cells = [f"{row.bytes:,}", *(f"<{bold}>{count}</{bold}>" for count in counts)]
            sides = " x ".join(map(str, row.shape))
            cells += [row.part, row.dtype, sides, escape(row.name)]
            lines.append("".join(f"<td>{cell}</td>" for cell in cells))
        sums = [f"{size:,}" for size in self.sums]
        lines.append("".join(f"<td><b>{cell}</b></td>" for cell in ("in all", *sums)))
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>{body}</table>"


def compare(ledgers: Mapping[str, Ledger], part: str | None = None) -> Comparison:
    """Return ledgers side by side, all of their rows or those of one part.

    >>> one = Row.of("model.norm", (4, 8), "float32", "activations")
    >>> compare({"mine": Ledger(), "measured": Ledger.of([one, one])})
    how many in 1 mine, 2 measured
    bytes  1  2  dtype    shape  name
      128  0  2  float32  4 x 8  model.norm
    bytes of these rows: mine 0, measured 256
    """
    if not ledgers or not all(isinstance(rows, Ledger) for rows in ledgers.values()):
        got = ", ".join(f"{name}: {type(rows).__name__}" for name, rows in ledgers.items())
        do = "Give {'mine': Ledger.of(rows), 'measured': breakdown.ledger}."
        raise CourseError("compare takes ledgers by their names.", got or "none", do)
    counts: dict[Row, list[int]] = {}
    for place, rows in enumerate(ledgers.values()):
        for row in rows:
            if part in (None, row.part):
                key = Row(row.name, row.shape, row.dtype, row.part, row.bytes)
                counts.setdefault(key, [0] * len(ledgers))[place] += row.count
    pairs = sorted(counts.items(), key=lambda pair: -pair[0].bytes * max(pair[1]))
    return Comparison(tuple(ledgers), tuple((row, tuple(each)) for row, each in pairs))
