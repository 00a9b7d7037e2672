"""Many questions looked up at once: what was found, how often it was right, and recorded shares."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.handbook import holds_value
from ftcourse.records import Record
from ftcourse.retrieval import Hit, recall_at_k
from ftcourse.sweeps import Run


def find_all(
    store: Any,
    rows: Sequence[Record],
    k: int = 3,
    allowed: Collection[str] = frozenset({"public"}),
    how: str = "lexical",
) -> list[list[Hit]]:
    """Return the k best hits for the question of each row."""
    asked = [row.get("question") or row["prompt"] for row in rows]
    return [store.search(text, k, allowed, how=how) for text in asked]


def page_recall(found: Sequence[Sequence[Hit]], rows: Sequence[Record], k: int) -> Score:
    """Return how many rows have their page among the first k hits."""
    ids = [[hit.page for hit in hits] for hits in found]
    return recall_at_k(ids, [row["page"] for row in rows], k)


def value_recall(found: Sequence[Sequence[Hit]], rows: Sequence[Record], k: int) -> Score:
    """Return how many rows have their value in one of the first k hits, on their page."""
    ids = [
        [hit.page if holds_value(row["value"], hit.text) else "" for hit in hits]
        for hits, row in zip(found, rows, strict=True)
    ]
    return recall_at_k(ids, [row["page"] for row in rows], k)


def form_of(question: str) -> str:
    """Return a question without its names and numbers, but for its first word.

    >>> form_of("How fast is the Wren?")
    'How fast is the ?'
    """
    return re.sub(r"(?<=\s)[A-Z]\w*(?: [A-Z]\w*)*|\d+", "", question)


def recall_over_forms(
    found: Sequence[Sequence[Hit]], rows: Sequence[Record], k: int
) -> tuple[int, float, float]:
    """Return how many forms the questions have, and a 95 % interval of ``page_recall`` over them.

    Questions of one form are mostly hit or missed together, so the forms are what was drawn: the
    variance is that of the forms' summed distances from the share (Liang and Zeger, 1986).
    """
    share, apart = page_recall(found, rows, k).share, defaultdict(float)
    for hits, row in zip(found, rows, strict=True):
        form = form_of(row.get("question") or row["prompt"])
        apart[form] += (row["page"] in [hit.page for hit in hits[:k]]) - share
    forms = len(apart)
    squares = sum(each**2 for each in apart.values()) * forms / max(forms - 1, 1)
    wide = 1.96 * sqrt(squares) / len(rows)
    return forms, max(share - wide, 0.0), min(share + wide, 1.0)


def first_hits(
    found: Sequence[Sequence[Hit]], rows: Sequence[Record], right: bool = True
) -> dict[str, str]:
    """Return each question whose first hit is its page, or is another one, with that page."""
    return {
        row.get("question") or row["prompt"]: hits[0].page
        for hits, row in zip(found, rows, strict=True)
        if hits and (hits[0].page == row["page"]) == right
    }


def recorded_shares(
    runs: Iterable[Run],
    name: str,
    beside: Mapping[str, Mapping[str, Score]] | None = None,
    *,
    of: str = "n",
    over: str = "seed",
    **columns: str,
) -> Mapping[str, Mapping[str, Score]]:
    """Return recorded counts as shares, by the name of a row and of a column.

    ``name`` is the row's, with settings in braces: "k = {k}". ``columns`` maps a count of the runs
    to its name, which may have settings, too. Runs of one name are added if they differ in
    ``over``; others would mix what is not alike, and are refused. ``beside`` has columns of these
    rows, which come first.

    >>> runs = [{"seed": 0, "right": 3, "n": 4}, {"seed": 1, "right": 1, "n": 4}]
    >>> recorded_shares(runs, "all", right="right")["all"]["right"].share
    0.5
    """
    met: set[tuple] = set()
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for run in runs:
        for result, column in columns.items():
            row, kind = name.format(**run), column.format(**run)
            key = row, kind, run.get(over)
            if key in met:
                must = f"Runs of one name are several {over}s of one setting."
                raise CourseError(must, f"two runs {row!r}, {kind!r}", "Select fewer runs.")
            met.add(key)
            both = counts[row][kind]
            both[0] += run[result]
            both[1] += run[of]
    first = beside or {}
    return {
        row: {**first.get(row, {}), **{column: Score(*both) for column, both in found.items()}}
        for row, found in counts.items()
    }
