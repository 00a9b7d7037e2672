"""How good a search is, with intervals; and several rankings made into one."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ftcourse.chat import bars_are_off
from ftcourse.errors import CourseError
from ftcourse.evaluate import Score
from ftcourse.records import Record


def recall_at_k(
    found: Sequence[Sequence[str]],
    wanted: Sequence[str | Collection[str]],
    k: int,
) -> Score:
    """Return the share of questions answered by the first k pages.

    ``found`` has the ids that the search gave to each question,
    best first. ``wanted`` has the id of the right page, or
    several ids, of which all must be among the first k.
    """
    check_found(found, wanted)
    if type(k) is not int or k < 1:
        raise CourseError("k is 1 or more.", f"k={k!r}", "Try k=3.")
    right = [as_set(pages) <= set(ids[:k]) for ids, pages in zip(found, wanted, strict=True)]
    return Score(sum(right), len(right))


@dataclass(frozen=True)
class MeanRank:
    """A mean of reciprocal ranks, with its 95 % interval."""

    mean: float
    interval: tuple[float, float]
    count: int

    def __float__(self) -> float:
        """Return the mean."""
        return self.mean

    def __repr__(self) -> str:
        """Return the mean with its interval and the count."""
        low, high = self.interval
        ends = f"95 % interval {low:.2f} to {high:.2f}"
        return f"{self.mean:.2f} over {self.count} ({ends})"


def mean_reciprocal_rank(
    found: Sequence[Sequence[str]],
    wanted: Sequence[str | Collection[str]],
) -> MeanRank:
    """Return the mean of 1 / place of the first right page, 0 if none.

    The interval is that of a mean of many independent values:
    1.96 standard errors to each side, kept within 0 and 1.
    """
    check_found(found, wanted)
    pairs = zip(found, wanted, strict=True)
    shares = np.array([reciprocal_rank(*pair) for pair in pairs])
    error = shares.std(ddof=1) / len(shares) ** 0.5 if len(shares) > 1 else 1.0
    mean, far = float(shares.mean()), float(1.96 * error)
    return MeanRank(mean, (max(mean - far, 0.0), min(mean + far, 1.0)), len(shares))


def reciprocal_rank(ids: Sequence[str], pages: str | Collection[str]) -> float:
    """Return 1 / place of the first right page, or 0.

    >>> reciprocal_rank(["wren-shop", "wren-flight"], "wren-flight")
    0.5
    """
    right = as_set(pages)
    places = (i for i, page in enumerate(ids, 1) if page in right)
    return 1 / next(places, float("inf"))


def fuse(
    *rankings: Sequence[Hashable],
    constant: int = 60,
) -> dict[Hashable, float]:
    """Return what several rankings say together, best first.

    Each gives 1 / (constant + place) to what it ranks (Cormack,
    Clarke and Buettcher, 2009). Scores of different kinds never
    meet: only places count.

    >>> list(fuse(["a", "b"], ["c", "a"]))
    ['a', 'c', 'b']
    """
    if type(constant) is not int or constant < 0:
        must, got = "The constant is 0 or more.", repr(constant)
        raise CourseError(must, got, "Try 60.")
    sums: dict[Hashable, float] = defaultdict(float)
    for ranking in rankings:
        for place, item in enumerate(ranking, 1):
            sums[item] += 1 / (constant + place)
    best = sorted(sums, key=lambda item: -sums[item])
    return {item: sums[item] for item in best}


def find_all(store: Any, questions: Sequence[Record], k: int = 5, **search: Any) -> list[list]:
    """Return the hits for each question: records with ``question``, and ``page`` or ``pages``.

    Choices such as ``allowed`` and ``how`` go to ``store.search``. Raises CourseError for a
    question whose page is not in the store: no search can find it, and recall would blame it.
    """
    here = {page for page, _ in store.pages}
    for number, row in enumerate(questions, 1):
        pages = row.get("pages") or [row.get("page")]
        if missing := [page for page in pages if page is not None and page not in here]:
            must = "The page that answers a question is in the store."
            got = f"question {number} ({row.get('question')!r}) with {missing[0]!r}"
            raise CourseError(must, got, "Add the page, or correct the id in the question.")
    with tqdm(questions, "questions", delay=2, leave=False, disable=bars_are_off()) as bar:
        return [store.search(row["question"], k, **search) for row in bar]


def as_set(pages: str | Collection[str]) -> set[str]:
    """Return one id or several ids as a set."""
    return {pages} if isinstance(pages, str) else set(pages)


def check_found(found: Sequence, wanted: Sequence) -> None:
    """Refuse lists that do not belong together, and a question without a right page."""
    if not len(found) or len(found) != len(wanted):
        must = "Each question has a list of found pages, and there is a question."
        got = f"{len(found)} lists of found pages and {len(wanted)} of wanted ones"
        raise CourseError(must, got, "Search for each question once.")
    for number, (ids, pages) in enumerate(zip(found, wanted, strict=True), 1):
        if isinstance(ids, str) or not all(isinstance(page, str) for page in ids):
            got = f"question {number}: {ids!r}"[:200]
            do = "Give [hit.page for hit in hits]."
            raise CourseError("Found pages are a list of ids.", got, do)
        if pages is None or not as_set(pages) or None in as_set(pages):
            must = "Recall counts questions that a page answers."
            do = "Leave out the questions that no page answers."
            raise CourseError(must, f"question {number} with {pages!r}", do)
