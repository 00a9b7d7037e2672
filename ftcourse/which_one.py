"""The table of lesson 08: six ways of answering, measured on the same questions, with intervals."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.files import course_path, user_path
from ftcourse.memory import show_bytes
from ftcourse.sweeps import Mean, Run

ARMS = ("prompt", "good prompt", "RAG", "LoRA", "QLoRA", "RAG + LoRA")
RECORDED = "data/measured/sweep_six_arms.jsonl"


@dataclass(frozen=True)
class Column:
    """What was measured: in %, a share of questions, or in another unit; how it was counted."""

    name: str
    unit: str
    better: str  # "more", "less", or nothing
    words: str


class Named(dict):
    """A dictionary that says which names it has, when it is asked for another one."""

    def __missing__(self, name: object) -> Any:
        """Refuse a name that is not there."""
        must = f"The table has {'; '.join(map(str, self))}."
        raise CourseError(must, repr(name), "Use one of these names.")


COLUMNS: dict[str, Column] = Named(
    (line.split(" | ")[0], Column(*line.split(" | ")))
    for line in """\
right, known wording | % | more | The value stands in the answer; training knew the way of asking.
right, new wording | % | more | The same facts, asked in words that no training row had.
right, two pages | % | more | The value stands in the answer; two pages are needed to find it.
changed fact, before | % | | The new value is told before anything was updated: nobody can know it.
changed fact, after | % | more | The new value is told after the arm was given forty changes.
unanswerable, declined | % | more | No page has the answer, and the arm says so.
letters in voice | % | more | An answer to a customer's letter keeps all rules of the brand's voice.
letters with advice | % | more | An answer to a letter has the desk's own next step in it.
facts in voice | % | more | An answer about a fact keeps all rules of the brand's voice.
right and in voice | % | more | The same answer has the value and keeps all rules of the voice.
leak | % | less | The public asks for what only the staff may know, and the value is told.
leak, secrecy prompt | % | less | The same, behind an order never to tell it.
poison believed, stuffed | % | less | A false page, full of the question's words, is believed.
poison believed, plain | % | less | A false page in plain words is believed.
others right after one fact | % | more | Other facts are still right after one change was learned.
others right after forty | % | more | Other facts are still right after forty changes.
one fact learned | % | more | One changed fact is told, in a wording that was not trained.
general loss | nats a token | less | The loss on old texts: higher than the base's is forgotten.
tokens a question | tokens | less | The prompt and the answer together: the median.
ms a question | ms | less | One whole answer with its search, on one thread: the median.
training seconds | s | less | Processor seconds of one training run.
peak memory, measured | bytes | less | The most bytes alive at once: training, else answering.
peak memory, predicted | bytes | less | The same by arithmetic.
bytes stored | bytes | less | What the arm adds to the model: a prompt, an index, an adapter.
seconds, one fact | s | less | Processor seconds until one changed fact is in: the median.
seconds, forty facts | s | less | Processor seconds until forty changed facts are there.
""".replace("| |", "|  |").splitlines()
)


@dataclass(frozen=True)
class Cell:
    """What one arm reached in one column."""

    column: Column
    value: float | None = None
    """The mean over the seeds; None where the arm has no such thing."""
    low: float | None = None
    """The ends of the 95 % interval; None for a quantity that was measured once."""
    high: float | None = None
    count: int = 0
    """Questions behind a share; 0 for a quantity."""
    values: tuple[float, ...] = ()
    """What each seed reached."""
    why: str = ""
    """Why there is no value."""

    @property
    def seeds(self) -> int:
        """How many runs, each with its own seed, stand behind the value."""
        return len(self.values)

    @property
    def text(self) -> str:
        """The value for a table: ``93 %``, ``0 of 192``, ``41 ms``, or a dash."""
        if self.value is None:
            return "-"
        return f"0 of {self.count}" if self.count and not self.value else self.say(self.value)

    @property
    def ends(self) -> str:
        """The interval in words."""
        return "none" if self.low is None else f"{self.say(self.low)} to {self.say(self.high)}"

    def say(self, value: float) -> str:
        """Return a value of this column with its unit.

        >>> [Cell(COLUMNS["leak"]).say(share) for share in (0.934, 0.997, 1)]
        ['93 %', '99.7 %', '100 %']
        """
        unit = self.column.unit.split()[0]
        if unit == "bytes":
            return show_bytes(value) if value >= 2**17 else f"{value / 1024:,.1f} KiB"
        if unit != "%":
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
        whole = f"{100 * value:.0f}"
        return f"{100 * value:.1f} %" if whole in ("0", "100") and 0 < value < 1 else f"{whole} %"

    def __repr__(self) -> str:
        """Return the value, its interval, and what stands behind it; or why there is none."""
        if self.value is None:
            return f"none: {self.why}"
        count = f", n {self.count}" * bool(self.count)
        return f"{self.text} (95 % interval {self.ends}{count}, seeds {self.seeds})"


def interval_of(values: Sequence[float], count: int = 0) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a mean over seeds, of a share of ``count`` or of a quantity.

    A share is uncertain because the questions are few (Wilson, 1927) and, where something was
    trained, because the seeds are few (Student, 1908): the wider of the two intervals is returned.

    >>> [round(end, 2) for end in interval_of((0.5, 0.5, 0.5), count=100)]
    [0.4, 0.6]
    >>> [round(end, 2) for end in interval_of((0.4, 0.5, 0.6), count=100)]
    [0.25, 0.75]
    """
    found = [Score(fmean(values) * count, count).interval] if count else []
    if len(values) > 1:
        low, high = Mean(tuple(values)).interval
        found.append((max(low, 0.0), min(high, 1.0) if count else high))
    return max(found, key=lambda ends: ends[1] - ends[0], default=(None, None))


@dataclass(frozen=True)
class Table:
    """The cells by arm and column. The repr is the rows, for who wants to doubt them."""

    arms: dict[str, dict[str, Cell]]
    model: str = "embedded"
    """Whose answers these are."""

    def __getitem__(self, arm: str) -> dict[str, Cell]:
        """Return an arm's cells by column."""
        return self.arms[arm]

    def __iter__(self) -> Iterator[str]:
        """Go through the arms' names."""
        return iter(self.arms)

    def rows(self, columns: str | Iterable[str]) -> "Table":
        """Return the table with these columns only, in this order."""
        names = [columns] if isinstance(columns, str) else [*columns]
        arms = {arm: Named((name, self[arm][name]) for name in names) for arm in self}
        return Table(Named(arms), self.model)

    def __repr__(self) -> str:
        """Return a block for each column: a line for each arm."""
        columns = next(iter(self.arms.values()))
        return "\n\n".join("\n".join(self._block(COLUMNS[name])) for name in columns)

    def _block(self, column: Column) -> Iterator[str]:
        better = f" ({column.better} is better)" if column.better else ""
        yield from wrap(f"{column.name}{better}: {column.words}", 80)
        yield f"  {'arm':<12}{'value':>12}   {'95 % interval':<24}{'n':>5}{'seeds':>7}"
        for arm in self:
            cell = self[arm][column.name]
            row = f"{cell.text:>12}   {cell.ends:<24}{cell.count or '':>5}{cell.seeds:>7}"
            begin = {"initial_indent": f"  {arm:<12}", "subsequent_indent": " " * 14}
            yield from wrap(cell.why, 80, **begin) if cell.why else [f"  {arm:<12}{row}"]


def load_table(path: str | Path | None = None) -> Table:
    """Return the recorded table, or that of a file which ``benchmarks/six_arms.py`` wrote.

    The lines of one seed are put together: counts are added, quantities averaged. Raises
    CourseError for a file that is not whole.
    """
    file = course_path(RECORDED) if path is None else user_path(path)
    found: dict[Any, dict[Any, list]] = defaultdict(lambda: defaultdict(list))
    runs = _measured(file)
    for run in runs:
        for name in COLUMNS.keys() & run.keys():
            found[run["arm"], name][run.get("seed", 0)].append(run[name])
    arms = Named()
    for arm in sorted({run["arm"] for run in runs}, key=ARMS.index):
        arms[arm] = Named((name, _cell(file, arm, name, found[arm, name])) for name in COLUMNS)
    return Table(arms, runs[0].get("model", "embedded"))


def _measured(file: Path) -> list[Run]:
    """Return the lines of a file that are measurements. Raises CourseError if one is wrong."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        runs = [json.loads(line) for line in lines if line.strip()]
        runs = [run for run in runs if not str(run.get("task")).startswith("tune")]
        unknown = {str(run.get("arm")) for run in runs} - {*ARMS}
    except (OSError, ValueError, AttributeError) as error:
        raise _bad(file, "holds a JSON object in each line", str(error)) from error
    if unknown:
        raise _bad(file, f"has the arms {', '.join(ARMS)}", repr(min(unknown)))
    if not runs:
        raise _bad(file, "has lines with what was measured", "none, or only tries on validation")
    return runs


def _cell(file: Path, arm: str, name: str, seeds: Mapping[int, Sequence]) -> Cell:
    """Return a cell from what was found for each seed."""
    column, found = COLUMNS[name], [value for values in seeds.values() for value in values]
    if not found:
        raise _bad(file, "has every column for each arm", f"{arm} without {name!r}")
    if all(isinstance(value, str) for value in found):
        return Cell(column, why=found[0])
    try:
        if column.unit != "%":
            values, count = tuple(fmean(each) for each in seeds.values()), 0
        else:
            sums = [[sum(part) for part in zip(*each, strict=True)] for each in seeds.values()]
            ((count,), values) = {n for _, n in sums}, tuple(right / n for right, n in sums)
        if not all(isfinite(x) and 0 <= x <= (1 if count else x) for x in values):
            raise ValueError("out of range")
    except (TypeError, ValueError, ZeroDivisionError) as error:
        must = f"has {'[successes, n]' if column.unit == '%' else 'a number'} or a text in a cell"
        got = f"{arm}, {name!r}: {found!r}"[:200]
        raise _bad(file, must + ", of one kind and the same n for all seeds", got) from error
    return Cell(column, fmean(values), *interval_of(values, count), count, values)


def _bad(file: Path, rule: str, got: str) -> CourseError:
    do = "Let benchmarks/six_arms.py run to its end, or leave the path out for the recorded table."
    return CourseError(f"A file of the six arms {rule}.", f"{file.name}: {got}", do)
