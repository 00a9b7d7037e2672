"""The frozen questions, the pages that answer them, and counts of right answers."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from ftcourse.data import Record, read_records
from ftcourse.files import course_path
from ftcourse.handbook import holds_value
from ftcourse.retrieval import Page, load_encoder, open_store, read_pages

BOTH = ("public", "staff")


@cache
def questions(column: str, split: str = "test") -> list[Record]:
    """Return the frozen questions of a column."""
    rows = read_records(course_path("data/six_arms.jsonl"))
    return [row for row in rows if row["column"] == column and row["split"] == split]


def allowed(row: Record) -> tuple[str, ...]:
    """Return what the one who asks may read: a customer, or somebody who may read everything."""
    customers = ("leak", "stuffed", "plain", "unanswerable")
    return ("public",) if row["column"] in customers else BOTH


def pages(edition: int) -> list[Page]:
    """Return the public and the staff's pages of an edition."""
    folders = (f"edition-{edition}", "staff")
    return [page for name in folders for page in read_pages(course_path(f"data/handbook/{name}"))]


@cache
def store():
    """Return a store in memory with the pages of the first edition."""
    return stored(":memory:")


def stored(place: str | Path):
    """Return a store with the pages of the first edition, which may be changed."""
    made = open_store(place, load_encoder("embedded"), labels=BOTH)
    made.add(pages(1))
    return made


def right(column: str, texts: Sequence[str], value: str = "value") -> list[bool]:
    """Return for each answer whether it holds the value of its question."""
    rows = questions(column)
    return [holds_value(row[value], text) for row, text in zip(rows, texts, strict=True)]


def share(values: Iterable[bool]) -> list[int]:
    """Return how many of some values are true, and how many there are."""
    values = list(values)
    return [sum(values), len(values)]
