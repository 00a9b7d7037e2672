"""Side by side: the tensors of several ledgers, and the predicted steps of several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import product
from textwrap import fill
from typing import Any

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import GIB, Card
from ftcourse.memory.breakdown import MemoryBreakdown
from ftcourse.memory.ledger import Ledger, Row
from ftcourse.memory.peak import predict_memory

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
            short = short.replace(".weight.", ".")  # so the end has lora_A or lora_B
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


@dataclass(frozen=True)
class Sizes:
    """Predicted steps of runs that differ in one field or in two. The repr is a table in GiB."""

    fields: dict[str, Sequence[Any]]
    """The fields and their values: that of the rows, if there are two, and that of the columns."""
    steps: dict[Any, MemoryBreakdown]
    """Each step by its value, or by its pair of values."""
    part: str
    """What the table shows: one of the five parts, or ``allocated``."""

    @property
    def bytes(self) -> dict[Any, int]:
        """What the table shows, in bytes."""
        return {key: getattr(step, self.part) for key, step in self.steps.items()}

    def __repr__(self) -> str:
        """Return the table, with a line for each value of the first of two fields."""
        *above, columns = self.fields.values()
        rows = above[0] if above else [None]
        lines = [[f"{self.part}, GiB", *map(str, columns)]]
        for row in rows:
            keys = [(row, column) if above else column for column in columns]
            sizes = [f"{self.bytes[key] / GIB:.2f}" for key in keys]
            lines.append([str(row) if above else " and ".join(self.fields), *sizes])
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        first, *others = widths
        return "\n".join(
            f"{name:<{first}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, others, strict=True))
            for name, *cells in lines
        )


def sizes(
    config: FinetuneConfig, card: Card, part: str = "allocated", **fields: Sequence[Any]
) -> Sizes:
    """Return the predicted steps of a run at all values of one field, or of two.

    >>> from ftcourse.hardware import CARDS
    >>> run = FinetuneConfig(model="llama-2-7b", dtype="float16")
    >>> sizes(run, CARDS["T4"], "weights", method=["lora", "qlora"])
    weights, GiB   lora  qlora
    method        12.70   3.75
    """
    if len(fields) not in (1, 2):
        got, do = ", ".join(fields) or "none", "Give rank=[4, 64], for example."
        raise CourseError("sizes varies one field of a config, or two.", got, do)
    steps = {}
    for values in product(*fields.values()):
        run = replace(config, **dict(zip(fields, values, strict=True)))
        steps[values if len(values) > 1 else values[0]] = predict_memory(run, card)
    return Sizes(fields, steps, part)
