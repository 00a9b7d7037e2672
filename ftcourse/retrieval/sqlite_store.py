"""The engine for one machine: words in FTS5 and vectors as blobs, in one SQLite file.

Pages are written one by one, each in a transaction: a kill loses the page that is being written, a
reader sees the old page or the new one. Other processes may read meanwhile (write-ahead log).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ftcourse.retrieval.chunks import Chunk
from ftcourse.retrieval.pages import Page
from ftcourse.retrieval.sqlite_file import explained, open_file, transaction
from ftcourse.retrieval.store import Embed, Key, Store

# Of equal scores: by the page's id, then the newer edition, then the place on the page.
_TIES = "page, edition desc, place"


class SqliteStore(Store):
    """Pages in one file. Its scores of words are FTS5's, over the words of all pages.

    A page that may not be read is never scored or shown. It does count in how rare a word is.
    """

    def __init__(
        self,
        path: Path | str,
        embed: Embed | None,
        chunker: Any,
        labels: frozenset[str],
        timeout: float,
    ):
        """Open the file, or make it. See ``open_store``."""
        self.path, self._version, self._rows = path, None, {}
        self.base = open_file(path, timeout)
        try:
            super().__init__(path, embed, chunker, labels)
        except BaseException:
            self.base.close()
            raise

    def __len__(self) -> int:
        """Return the number of chunks."""
        with explained(self.path):
            return self.base.execute("select count(*) from chunks").fetchone()[0]

    @property
    def editions(self) -> list[int]:
        """The editions of the pages that are here."""
        ask = "select distinct edition from pages order by edition"
        with explained(self.path):
            return [edition for (edition,) in self.base.execute(ask)]

    def close(self) -> None:
        """Close the file."""
        self.base.close()

    def _reading(self) -> AbstractContextManager:
        return transaction(self.base, self.path, "begin")

    def _choices(self, new: dict[str, str]) -> dict[str, str]:
        with transaction(self.base, self.path, "begin immediate" if new else "begin"):
            ask = "select name, value from choices"
            if not self.base.execute(ask).fetchall():
                self.base.executemany("insert into choices values (?, ?)", new.items())
            return dict(self.base.execute(ask))

    def _kept(self) -> dict[Key, str]:
        with explained(self.path):
            rows = self.base.execute("select id, edition, fingerprint from pages")
            return {(page, edition): fingerprint for page, edition, fingerprint in rows}

    def _editions_of(self, page_id: str) -> list[int]:
        with explained(self.path):
            rows = self.base.execute("select edition from pages where id = ?", (page_id,))
            return [edition for (edition,) in rows]

    def _write(self, page: Page, chunks: list[Chunk], vectors: np.ndarray) -> None:
        with transaction(self.base, self.path):
            self._erase_within(page.key)
            execute = self.base.execute
            execute("insert into pages values (?, ?, ?)", (*page.key, page.fingerprint))
            for place, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
                row = (*page.key, place, page.access, vector.tobytes())
                new = execute("insert into chunks values (null, ?, ?, ?, ?, ?)", row).lastrowid
                execute("insert into words (rowid, text) values (?, ?)", (new, chunk.text))

    def _erase(self, keys: list[Key]) -> None:
        with transaction(self.base, self.path):
            for key in keys:
                self._erase_within(key)

    def _erase_within(self, key: Key) -> None:
        """Erase a page within the transaction that is open."""
        self._version = None
        own = "from chunks where page = ? and edition = ?"
        self.base.execute(f"delete from words where rowid in (select number {own})", key)
        self.base.execute(f"delete {own}", key)
        self.base.execute("delete from pages where id = ? and edition = ?", key)

    def _by_words(
        self, words: list[str], labels: list[str], edition: int | None, depth: int
    ) -> dict[int, float]:
        match = " OR ".join(f'"{word}"' for word in words)  # quoted: never FTS5's own language
        rows = self.base.execute(
            "select number, -bm25(words) from words join chunks on number = words.rowid"
            f" where words match ? and {_readable(labels)}"
            f" order by bm25(words), {_TIES} limit ?",
            (match, *labels, edition, depth),
        )
        return dict(rows.fetchall())

    def _by_vectors(
        self, asked: np.ndarray, labels: list[str], edition: int | None, depth: int
    ) -> dict[int, float]:
        numbers, matrix = self._vectors((tuple(labels), edition))
        # Rounded: equal texts get equal scores wherever their rows are.
        scores = np.round(matrix @ asked, 6)
        least = np.partition(scores, -depth)[-depth] if depth < len(scores) else -np.inf
        near = np.flatnonzero(scores >= least)
        best = near[np.argsort(-scores[near], kind="stable")[:depth]]
        return dict(zip(numbers[best].tolist(), scores[best].tolist(), strict=True))

    def _vectors(self, readable: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers and vectors of the chunks that may be read, in the order of ties.

        They stay in memory, once for each set of labels that asks, until somebody writes.
        """
        [version] = self.base.execute("pragma data_version").fetchone()
        if version != self._version:
            self._version, self._rows = version, {}
        if readable not in self._rows:
            labels, edition = readable
            rows = self.base.execute(
                f"select number, vector from chunks where {_readable(labels)} order by {_TIES}",
                (*labels, edition),
            ).fetchall()
            matrix = np.frombuffer(b"".join(blob for _, blob in rows), np.float32)
            numbers = np.array([number for number, _ in rows], dtype=int)
            self._rows[readable] = numbers, matrix.reshape(-1, self.width)
        return self._rows[readable]

    def _read(self, number: int) -> tuple[str, str, str, int, int]:
        ask = (
            "select page, text, access, edition, place from chunks"
            " join words on words.rowid = number where number = ?"
        )
        return self.base.execute(ask, (number,)).fetchone()


def _readable(labels: Sequence[str]) -> str:
    """Return the condition on what may be read: some labels, and an edition or none."""
    return f"access in ({', '.join('?' * len(labels))}) and ifnull(edition = ?, true)"
