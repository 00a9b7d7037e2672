"""A store of pages: five methods, and what an engine below them does to keep the chunks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ftcourse.chat import bars_are_off
from ftcourse.errors import CourseError, check_kind
from ftcourse.retrieval.checks import (
    check_pages,
    check_same,
    check_search,
    choices_of,
    find_chunker,
    make_chunks,
    make_vectors,
    no_page,
)
from ftcourse.retrieval.chunks import Chunk
from ftcourse.retrieval.pages import Page
from ftcourse.retrieval.scores import fuse

PUBLIC = frozenset({"public"})
DEPTH = 100  # of each ranking that a hybrid search fuses
BATCH = 64  # pages that are embedded together

Embed = Callable[[Sequence[str]], np.ndarray]
Key = tuple[str, int]
"""A page's id and edition."""


@dataclass(frozen=True)
class Hit:
    """A chunk that a search found: its page's id, its text, how well it fits, and its labels."""

    page: str
    text: str
    score: float
    access: str
    edition: int


class Store(ABC):
    """Pages as chunks, found by words, by vectors or by both, with labels before any score."""

    def __init__(self, path: Any, embed: Embed | None, chunker: Any, labels: frozenset[str]):
        """Compare how the index was made with how it is opened. The engine has opened it."""
        self.path, self.embed, self.labels = path, embed, labels
        self.width = 0 if embed is None else make_vectors(embed, ["a"]).shape[1]
        kept = self._choices({})
        self.chunker = find_chunker(path, chunker, kept.get("chunker"))
        given = choices_of(embed, self.width, self.chunker, labels)
        check_same(path, kept or self._choices(given), given)

    def add(self, pages: Iterable[Page]) -> None:
        """Add pages; those that are already here as they are take no time.

        Raises CourseError before any is written if an id is here with another text, or twice in
        ``pages``, or if a label is unknown.
        """
        pages, kept = check_pages(pages, self.labels), self._kept()
        for page in pages:
            if kept.get(page.key, page.fingerprint) != page.fingerprint:
                must = "A page is added once; a changed page is updated."
                got = f"page {page.id!r} of edition {page.edition} is here with another text"
                raise CourseError(must, got, "Use store.update(page).")
        new = [page for page in pages if page.key not in kept]
        shown = {"delay": 2, "leave": False, "disable": bars_are_off()}
        with tqdm(total=len(new), desc="pages", **shown) as bar:
            for start in range(0, len(new), BATCH):
                for page, chunks, vectors in self._prepared(new[start : start + BATCH]):
                    self._write(page, chunks, vectors)
                    bar.update()

    def update(self, page: Page) -> None:
        """Replace a page by its new text. Raises CourseError if it is not here."""
        check_pages([page], self.labels)
        if page.edition not in self._editions_of(page.id):
            raise no_page(page.id, page.edition)
        for prepared in self._prepared([page]):
            self._write(*prepared)

    def delete(self, page_id: str, edition: int | None = None) -> None:
        """Delete a page, in all its editions or in one. Raises CourseError if it is not here."""
        check_kind("page_id", page_id, str, "'wren-flight'")
        here = self._editions_of(page_id)
        keys = [(page_id, number) for number in here if edition in (None, number)]
        if not keys:
            raise no_page(page_id, edition)
        self._erase(keys)

    def search(
        self,
        query: str,
        k: int = 3,
        allowed: Collection[str] = PUBLIC,
        edition: int | None = None,
        how: str = "lexical",
    ) -> list[Hit]:
        """Return the k chunks that fit best among those that ``allowed`` and ``edition`` leave.

        ``how``: "lexical" (bm25; only chunks that share a word), "dense" (the cosine of the
        vectors) or "hybrid" (``fuse`` of both). Equal scores stand in the order of their pages'
        ids, then the newer edition first: a fixed order and no judgement.
        """
        with self._reading():
            words, labels = check_search(self, query, k, allowed, edition, how)
            depth = k if how != "hybrid" else max(k, DEPTH)
            rankings = []
            if how != "dense":
                rankings.append(self._by_words(words, labels, edition, depth))
            if how != "lexical":
                [asked] = make_vectors(self.embed, [query], self.width)
                rankings.append(self._by_vectors(asked, labels, edition, depth))
            scores = rankings[0] if how != "hybrid" else fuse(*rankings)
            least = min(sorted(scores.values())[-k:], default=0.0)
            best = {number: score for number, score in scores.items() if score >= least}
            found = [(score, *self._read(number)) for number, score in best.items()]
        found.sort(key=lambda row: tie_rule(*row))
        return [Hit(page, text, score, *labels) for score, page, text, *labels, _ in found[:k]]

    def __enter__(self) -> "Store":
        """Return the store, which is closed where the block ends."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the store."""
        self.close()

    @property
    def pages(self) -> list[Key]:
        """The id and the edition of each page."""
        return sorted(self._kept())

    @property
    def editions(self) -> list[int]:
        """The editions of the pages that are here."""
        return sorted({edition for _, edition in self._kept()})

    def _prepared(self, pages: Sequence[Page]) -> Iterator[tuple[Page, list[Chunk], np.ndarray]]:
        """Yield each page with its chunks and their vectors, which are made together."""
        cut = [make_chunks(self.chunker, page) for page in pages]
        texts = [chunk.text for chunks in cut for chunk in chunks]
        rows = np.empty((len(texts), 0), np.float32)
        if self.embed is not None:
            rows = make_vectors(self.embed, texts, self.width)
        for page, chunks in zip(pages, cut, strict=True):
            yield page, chunks, rows[: len(chunks)]
            rows = rows[len(chunks) :]

    def _reading(self) -> AbstractContextManager:
        """Return what surrounds a search, so that it sees one state of the store."""
        return nullcontext()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of chunks."""

    @abstractmethod
    def close(self) -> None:
        """Close the store."""

    @abstractmethod
    def _choices(self, new: dict[str, str]) -> dict[str, str]:
        """Return how the index was made; if nothing is written down, write ``new`` down."""

    @abstractmethod
    def _kept(self) -> dict[Key, str]:
        """Return the fingerprint of each page that is here."""

    def _editions_of(self, page_id: str) -> list[int]:
        """Return the editions of a page that are here."""
        return [edition for page, edition in self._kept() if page == page_id]

    @abstractmethod
    def _write(self, page: Page, chunks: list[Chunk], vectors: np.ndarray) -> None:
        """Write a page in place of what its key has, all of it or nothing."""

    @abstractmethod
    def _erase(self, keys: list[Key]) -> None:
        """Erase pages."""

    @abstractmethod
    def _by_words(
        self, words: list[str], labels: list[str], edition: int | None, depth: int
    ) -> dict[Any, float]:
        """Return the numbers of the best chunks that share a word, with their scores."""

    @abstractmethod
    def _by_vectors(
        self, asked: np.ndarray, labels: list[str], edition: int | None, depth: int
    ) -> dict[Any, float]:
        """Return the numbers of the chunks nearest to a vector, with their cosines."""

    @abstractmethod
    def _read(self, number: Any) -> tuple[str, str, str, int, int]:
        """Return the page, text, label, edition and place of a chunk."""


def tie_rule(
    score: float, page: str, text: str, access: str, edition: int, place: int
) -> tuple[float, str, int, int]:
    """Return what hits are sorted by: of equal scores the ids, then the newer edition first."""
    return -score, page, -edition, place
