"""The engine for those who outgrow one machine: qdrant, in a folder or on a server.

Both have one API; the folder (qdrant's local mode) is for trying and for tests. It keeps its points
as pickles, so open only folders of your own. A page is several points, which qdrant writes one by
one: each says how many belong to it, and a page that a kill left half written is not there.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from zlib import crc32

import numpy as np

from ftcourse.errors import CourseError
from ftcourse.retrieval.chunks import Chunk
from ftcourse.retrieval.lexical import stem_words
from ftcourse.retrieval.pages import Page
from ftcourse.retrieval.store import Embed, Key, Store, tie_rule

NAME = "ftcourse"
K1, B, MEAN_LENGTH = 1.2, 0.75, 48  # qdrant cannot know the mean length while it is written
SPARE = 100  # hits more than asked for, so that equal scores are put in order here


class QdrantStore(Store):
    """Pages as points of one collection.

    Words are sparse vectors whose weights are bm25's, with the rarity of a word counted by qdrant:
    ln(1 + (N - n + 0.5) / (n + 0.5)). So scores differ from those of SQLite, ranks hardly do.
    """

    def __init__(
        self,
        path: Path | str,
        embed: Embed | None,
        chunker: Any,
        labels: frozenset[str],
        timeout: float,
    ):
        """Open the folder or the server. See ``open_store``."""
        self.path = path
        self.client, self.models = _connect(path, timeout)
        try:
            super().__init__(path, embed, chunker, labels)
            self._points = self._whole_pages()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of chunks."""
        return sum(len(numbers) for _, numbers in self._points.values())

    def close(self) -> None:
        """Close the connection, or the folder."""
        self.client.close()

    def _reading(self) -> AbstractContextManager:
        self._found: dict[str, dict] = {}  # what this search has found
        return nullcontext()

    def _choices(self, new: dict[str, str]) -> dict[str, str]:
        if self.client.collection_exists(NAME):
            return dict(self.client.get_collection(NAME).config.metadata or {})
        if new:
            dense = self.models.VectorParams(
                size=self.width or 1, distance=self.models.Distance.COSINE
            )
            words = self.models.SparseVectorParams(modifier=self.models.Modifier.IDF)
            vectors, sparse = {"dense": dense}, {"words": words}
            self.client.create_collection(
                NAME, vectors_config=vectors, sparse_vectors_config=sparse, metadata=new
            )
        return new

    def _whole_pages(self) -> dict[Key, tuple[str, list[str]]]:
        """Return the fingerprint and the points of each page; the points of half a page go."""
        written: dict[tuple, list[tuple[str, int]]] = {}
        place = 0
        while place is not None:
            points, place = self.client.scroll(NAME, limit=1_000, offset=place or None)
            for point in points:
                of = point.payload
                name = (of["written"], of["page"], of["edition"], of["fingerprint"])
                written.setdefault(name, []).append((point.id, of["count"]))
        pages, gone = {}, []
        for (_, page, edition, fingerprint), found in sorted(written.items()):  # oldest first
            numbers = [number for number, _ in found]
            if len(found) < found[0][1]:
                gone += numbers
                continue
            gone += pages.get((page, edition), ("", []))[1]
            pages[page, edition] = fingerprint, numbers
        self._delete(gone)
        return pages

    def _delete(self, numbers: list[str]) -> None:
        if numbers:
            self.client.delete(NAME, numbers, wait=True)

    def _kept(self) -> dict[Key, str]:
        return {key: fingerprint for key, (fingerprint, _) in self._points.items()}

    def _write(self, page: Page, chunks: list[Chunk], vectors: np.ndarray) -> None:
        told = {"page": page.id, "edition": page.edition, "access": page.access}
        told |= {"fingerprint": page.fingerprint, "count": len(chunks), "written": time.time_ns()}
        stems = stem_words([chunk.text for chunk in chunks])
        points = []
        for place, (chunk, row) in enumerate(zip(chunks, vectors, strict=True)):
            number = str(uuid5(NAMESPACE_URL, repr((told["written"], page.key, place))))
            vector = {"words": self.models.SparseVector(**_weights(stems[place]))}
            if self.width:
                vector["dense"] = row.tolist()
            payload = told | {"place": place, "text": chunk.text}
            points.append(self.models.PointStruct(id=number, vector=vector, payload=payload))
        self.client.upsert(NAME, points, wait=True)
        _, old = self._points.get(page.key, ("", []))
        self._points[page.key] = page.fingerprint, [point.id for point in points]
        self._delete(old)

    def _erase(self, keys: list[Key]) -> None:
        for key in keys:
            self._delete(self._points.pop(key)[1])

    def _by_words(
        self, words: list[str], labels: list[str], edition: int | None, depth: int
    ) -> dict[str, float]:
        [stems] = stem_words([" ".join(words)])
        counts = {number: float(stems.count(stem)) for stem, number in _numbers(stems).items()}
        query = self.models.SparseVector(indices=list(counts), values=list(counts.values()))
        return self._query(query, "words", labels, edition, depth)

    def _by_vectors(
        self, asked: np.ndarray, labels: list[str], edition: int | None, depth: int
    ) -> dict[str, float]:
        return self._query(asked.tolist(), "dense", labels, edition, depth)

    def _query(
        self, query: Any, using: str, labels: list[str], edition: int | None, depth: int
    ) -> dict[str, float]:
        """Return the best points that carry one of the labels, with their scores."""
        must = [self.models.FieldCondition(key="access", match=self.models.MatchAny(any=labels))]
        if edition is not None:
            match = self.models.MatchValue(value=edition)
            must.append(self.models.FieldCondition(key="edition", match=match))
        answer = self.client.query_points(
            NAME,
            query=query,
            using=using,
            limit=depth + SPARE,
            query_filter=self.models.Filter(must=must),
        )
        self._found |= {point.id: point.payload for point in answer.points}
        scores = {point.id: round(point.score, 6) for point in answer.points}
        ranked = sorted(scores, key=lambda number: tie_rule(scores[number], *self._read(number)))
        return {number: scores[number] for number in ranked[:depth]}

    def _read(self, number: str) -> tuple[str, str, str, int, int]:
        of = self._found[number]
        return of["page"], of["text"], of["access"], of["edition"], of["place"]


def _connect(path: Path | str, timeout: float) -> tuple[Any, Any]:
    """Return qdrant's client for a folder, a server or memory, and its module ``models``."""
    try:
        from qdrant_client import QdrantClient, models
    except ImportError as error:
        must = 'engine="qdrant" needs the extra ftcourse[qdrant].'
        do = 'Use engine="sqlite", or pip install "ftcourse[qdrant]".'
        raise CourseError(must, "no package qdrant_client here", do) from error
    try:
        if path == ":memory:":
            return QdrantClient(path), models
        if isinstance(path, Path):
            _check_folder(path)
            return QdrantClient(path=str(path)), models
        return QdrantClient(url=path, timeout=int(timeout) or 1), models
    except (RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
        must = "A folder of qdrant is whole, and one process at a time opens it."
        do = "Close the other store, run a server, or add the pages to another folder."
        raise CourseError(must, f"{path}: {error}"[:300], do) from error


def _check_folder(path: Path) -> None:
    """Refuse a file, and a folder that holds something else: qdrant would write into it."""
    is_other = path.exists() and not path.is_dir()
    if is_other or (path.is_dir() and any(path.iterdir()) and not (path / "meta.json").exists()):
        must = "An index of qdrant is a folder of its own."
        raise CourseError(must, f"{path} holds something else", "Give another path.")


def _numbers(stems: list[str]) -> dict[str, int]:
    """Return a number for each stem: its checksum. Two stems of a million rarely share one."""
    return {stem: crc32(stem.encode()) for stem in stems}


def _weights(stems: list[str]) -> dict[str, list]:
    """Return how much each stem counts in its text, as in ``BM25`` but for its rarity."""
    length = 1 - B + B * len(stems) / MEAN_LENGTH
    shares: dict[int, float] = {}
    for stem, number in _numbers(stems).items():
        times = stems.count(stem)
        shares[number] = times * (K1 + 1) / (times + K1 * length)
    return {"indices": list(shares), "values": list(shares.values())}
