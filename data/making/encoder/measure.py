"""What a trained encoder finds on the handbook, of which it has read nothing, beside bm25."""

from collections.abc import Callable
from functools import cache

import numpy as np

from data.making.encoder.pairs import all_asks
from data.making.world.handbook import editions
from ftcourse.evaluate import Score
from ftcourse.handbook import load_pages
from ftcourse.records import Record
from ftcourse.retrieval import BM25, recall_at_k
from ftcourse.retrieval.encoder import Embedder

KS = (1, 3, 5)
Ranker = Callable[[list[str], list[str]], np.ndarray]
"""Questions and pages to scores, (questions, pages)."""


@cache
def probes() -> list[Record]:
    """Return each question on the first edition in three wordings, with the wording's number."""
    found = []
    for fact in editions()[0]:
        for wording, ask in enumerate(all_asks(fact.kind, fact.attribute)):
            attribute = f"{fact.kind}.{fact.attribute}"
            question = ask.format(x=fact.subject)
            row = {"question": question, "page": fact.page}
            found.append(row | {"wording": wording, "attribute": attribute})
    return found


def by_encoder(embed: Embedder) -> Ranker:
    """Return the ranking by the cosine of vectors."""
    return lambda questions, pages: embed(questions) @ embed(pages).T


def by_bm25(questions: list[str], pages: list[str]) -> np.ndarray:
    """Return the ranking by words."""
    bm25 = BM25(pages)
    return np.stack([bm25.scores(question) for question in questions])


def find(rank: Ranker, rows: list[Record], also: tuple[str, ...] = ()) -> list[list[str]]:
    """Return the ids of the best pages for each question; ``also`` as in ``load_pages``."""
    pages = load_pages(also=also)
    scores = rank([row["question"] for row in rows], list(pages.values()))
    best = np.argsort(-scores, axis=1, kind="stable")[:, : max(KS)]
    return [[list(pages)[place] for place in places] for places in best]


def recalls(found: list[list[str]], rows: list[Record]) -> dict[str, Score]:
    """Return recall at 1, 3 and 5."""
    wanted = [row["page"] for row in rows]
    return {f"recall@{k}": recall_at_k(found, wanted, k) for k in KS}
