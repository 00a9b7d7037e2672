"""A store in one SQLite file: words in FTS5, vectors as blobs, labels read before any score.

Pages are written one by one, each in a transaction: a kill loses the page that is being written, a
reader sees the old page or the new one. Other processes may read meanwhile (write-ahead log).
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ftcourse.errors import CourseError, check_kind
from ftcourse.retrieval.chunks import Chunk
from ftcourse.retrieval.pages import Page
from ftcourse.retrieval.scores import fuse
from ftcourse.retrieval.sqlite_file import explained, open_file, transaction
from ftcourse.retrieval.store import (
    DEPTH,
    PUBLIC,
    Embed,
    Hit,
    batches,
    check_edition,
    check_pages,
    check_same,
    check_search,
    choices_of,
    find_chunker,
    make_chunks,
    make_vectors,
    no_embedder,
)

# Equal scores: by the page's id, then the newer edition, then the place on the page.
_TIES = "page, edition desc, place"


class SqliteStore:
    """Pages in one file, found by words, by vectors, or by both."""

    def __init__(
        self,
        path: Path | str,
        embed: Embed | None,
        chunker: Any,
        labels: frozenset[str],
        timeout: float,
    ):
        """Open the file, or make it. See ``open_store``."""
        self.path, self.embed, self.labels = path, embed, labels
        self._version, self._rows = None, {}
        self.base = open_file(path, timeout)
        width = 0 if embed is None else make_vectors(embed, ["a"]).shape[1]
        begin = "begin" if self._choices() else "begin immediate"
        with transaction(self.base, path, begin):
            kept = self._choices()
            self.chunker = find_chunker(path, chunker, kept.get("chunker"))
            given = choices_of(embed, width, self.chunker, labels)
            check_same(path, kept or given, given)
            rows = [] if kept else given.items()
            self.base.executemany("insert into choices values (?, ?)", rows)

    def add(self, pages: Iterable[Page]) -> None:
        """Add pages; those that are already there as they are take no time.

        Raises CourseError before any is written if an id is there with another text or twice in
        ``pages``, or if a label is unknown.
        """
        pages = check_pages(pages, self.labels)
        with explained(self.path):
            rows = self.base.execute("select id, edition, fingerprint from pages")
            kept = {(id_, edition): print_ for id_, edition, print_ in rows}
        for page in pages:
            if kept.get(page.key, page.fingerprint) != page.fingerprint:
                must = "A page is added once; a changed page is updated."
                got = f"page {page.id!r} of edition {page.edition} is here with another text"
                raise CourseError(must, got, "Use store.update(page).")
        for batch in batches([page for page in pages if page.key not in kept]):
            for page, chunks, vectors in self._prepared(batch):
                with transaction(self.base, self.path):
                    self._write(page, chunks, vectors)

    def update(self, page: Page) -> None:
        """Replace a page by its new text. Raises CourseError if it is not here."""
        check_pages([page], self.labels)
        [(_, chunks, vectors)] = self._prepared([page])
        with transaction(self.base, self.path):
            self._erase(page.id, page.edition)
            self._write(page, chunks, vectors)

    def delete(self, page_id: str, edition: int | None = None) -> None:
        """Delete a page, in all its editions or in one. Raises CourseError if it is not here."""
        check_kind("page_id", page_id, str, "'wren-flight'")
        with transaction(self.base, self.path):
            self._erase(page_id, edition)

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
        with transaction(self.base, self.path, "begin"):
            words, labels = check_search(query, k, allowed, how, self.labels, len(self))
            check_edition(edition, self.editions)
            depth = k if how != "hybrid" else max(k, DEPTH)
            rankings = []
            if how != "dense":
                rankings.append(self._by_words(words, labels, edition, depth))
            if how != "lexical":
                rankings.append(self._by_vectors(query, labels, edition, depth))
            return self._hits(rankings[0] if how != "hybrid" else fuse(*rankings), k)

    def __len__(self) -> int:
        """Return the number of chunks."""
        with explained(self.path):
            return self.base.execute("select count(*) from chunks").fetchone()[0]

    @property
    def editions(self) -> set[int]:
        """The editions of the pages that are here."""
        return {edition for _, edition in self.pages}

    @property
    def pages(self) -> list[tuple[str, int]]:
        """The id and the edition of each page."""
        with explained(self.path):
            return list(self.base.execute("select id, edition from pages order by id, edition"))

    def close(self) -> None:
        """Close the file."""
        self.base.close()

    def _choices(self) -> dict[str, str]:
        """Return what the index wrote down about how it was made; nothing if it is new."""
        with explained(self.path):
            return dict(self.base.execute("select name, value from choices"))

    def _prepared(self, pages: list[Page]) -> Iterator[tuple[Page, list[Chunk], list]]:
        """Yield each page with its chunks and their vectors, embedded together."""
        cut = [make_chunks(self.chunker, page) for page in pages]
        texts = [chunk.text for chunks in cut for chunk in chunks]
        rows = [None] * len(texts)
        if self.embed is not None:
            rows = [row.tobytes() for row in make_vectors(self.embed, texts)]
        for page, chunks in zip(pages, cut, strict=True):
            yield page, chunks, rows[: len(chunks)]
            rows = rows[len(chunks) :]

    def _write(self, page: Page, chunks: list[Chunk], vectors: list) -> None:
        """Write one page within the transaction that is open."""
        self._version = None
        execute = self.base.execute
        execute("insert into pages values (?, ?, ?)", (*page.key, page.fingerprint))
        for place, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
            row = (*page.key, place, page.access, vector)
            new = execute("insert into chunks values (null, ?, ?, ?, ?, ?)", row).lastrowid
            execute("insert into words (rowid, text) values (?, ?)", (new, chunk.text))

    def _erase(self, page_id: str, edition: int | None) -> None:
        """Erase a page within the transaction that is open, or refuse if it is not here."""
        self._version = None
        execute, what = self.base.execute, (page_id, edition, edition)
        own = "from chunks where page = ? and ifnull(? = edition, ? is null)"
        execute(f"delete from words where rowid in (select number {own})", what)
        execute(f"delete {own}", what)
        own = own.replace("chunks", "pages").replace("page =", "id =")
        if not execute(f"delete {own}", what).rowcount:
            must = "A page that is updated or deleted is here."
            got = f"no page {page_id!r}" + (f" of edition {edition}" if edition else "")
            raise CourseError(must, got, "Look at store.pages, or add it with store.add([page]).")

    def _by_words(
        self, words: list[str], labels: list[str], edition: int | None, depth: int
    ) -> dict[int, float]:
        """Return the best chunks that share a word, with their bm25. Labels come first."""
        match = " OR ".join(f'"{word}"' for word in words)  # quoted: never FTS5's own language
        own = f"access in ({', '.join('?' * len(labels))}) and ifnull(? = edition, ? is null)"
        rows = self.base.execute(
            "select number, -bm25(words) from words join chunks on number = words.rowid"
            f" where words match ? and {own} order by bm25(words), {_TIES} limit ?",
            (match, *labels, edition, edition, depth),
        )
        return dict(rows.fetchall())

    def _by_vectors(
        self, query: str, labels: list[str], edition: int | None, depth: int
    ) -> dict[int, float]:
        """Return the chunks nearest to the query, with their cosine. Labels come first."""
        if self.embed is None:
            raise no_embedder(self.path)
        self._read_vectors()
        rows = self._rows
        may = np.isin(rows["access"], labels)
        may &= (edition is None) | (rows["edition"] == edition)
        matrix = rows["matrix"] if may.all() else rows["matrix"][may]
        [asked] = make_vectors(self.embed, [query], matrix.shape[1])
        # Rounded: equal texts get equal scores wherever their rows are.
        scores = np.round(matrix @ asked, 6)
        best = np.argsort(-scores, kind="stable")[:depth]
        return dict(zip(rows["number"][may][best].tolist(), scores[best].tolist(), strict=True))

    def _read_vectors(self) -> None:
        """Keep all vectors in memory, in the order of ties, until somebody writes."""
        [version] = self.base.execute("pragma data_version").fetchone()
        if version != self._version:
            ask = f"select number, access, edition, vector from chunks order by {_TIES}"
            number, access, edition, blobs = zip(*self.base.execute(ask), strict=True)
            matrix = np.frombuffer(b"".join(blobs), np.float32).reshape(len(number), -1)
            self._rows = {"number": np.array(number), "access": np.array(access)}
            self._rows |= {"edition": np.array(edition), "matrix": matrix}
            self._version = version

    def _hits(self, scores: dict[int, float], k: int) -> list[Hit]:
        """Return the best k chunks with their texts."""
        ask = (
            "select page, text, access, edition, place from chunks"
            " join words on words.rowid = number where number = ?"
        )
        found = []
        for number, score in scores.items():
            page, text, access, edition, place = self.base.execute(ask, (number,)).fetchone()
            found.append(((-score, page, -edition, place), Hit(page, text, score, access, edition)))
        return [hit for _, hit in sorted(found, key=lambda pair: pair[0])[:k]]
