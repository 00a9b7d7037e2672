"""Many questions looked up at once: what was found, how often it was right, and recorded shares."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    runs: Iterable[Run], name: str, of: str = "n", **columns: str
) -> Mapping[str, Mapping[str, Score]]:
    """Return recorded counts as shares, by the name of a row and of a column.

    ``name`` is the row's, with settings in braces: "k = {k}". ``columns`` maps a count of the runs
    to its name, which may have settings, too. Runs of one name are added if they differ in
    ``seed``; others would mix what is not alike, and are refused.

    >>> runs = [{"seed": 0, "right": 3, "n": 4}, {"seed": 1, "right": 1, "n": 4}]
    >>> recorded_shares(runs, "all", right="right")["all"]["right"].share
    0.5
    """
    met: set[tuple] = set()
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for run in runs:
        for result, column in columns.items():
            row, kind = name.format(**run), column.format(**run)
            key = row, kind, run.get("seed")
            if key in met:
                must = "Runs of one name are several seeds of one setting."
                raise CourseError(must, f"two runs {row!r}, {kind!r}", "Select fewer runs.")
            met.add(key)
            both = counts[row][kind]
            both[0] += run[result]
            both[1] += run[of]
    return {
        row: {column: Score(*both) for column, both in found.items()}
        for row, found in counts.items()
    }
