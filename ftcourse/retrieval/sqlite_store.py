"""The engine for one machine: words in FTS5 and vectors as blobs, in one SQLite file.

Pages are written one by one, each in a transaction: a kill loses the page that is being written, a
reader sees the old page or the new one. Other processes may read meanwhile (write-ahead log).
"""

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
        own = f"access in ({', '.join('?' * len(labels))}) and ifnull(edition = ?, true)"
        rows = self.base.execute(
            "select number, -bm25(words) from words join chunks on number = words.rowid"
            f" where words match ? and {own} order by bm25(words), {_TIES} limit ?",
            (match, *labels, edition, depth),
        )
        return dict(rows.fetchall())

    def _by_vectors(
        self, asked: np.ndarray, labels: list[str], edition: int | None, depth: int
    ) -> dict[int, float]:
        rows = self._vectors()
        may = np.isin(rows["access"], labels)
        if edition is not None:
            may &= rows["edition"] == edition
        matrix = rows["matrix"] if may.all() else rows["matrix"][may]
        # Rounded: equal texts get equal scores wherever their rows are.
        scores = np.round(matrix @ asked, 6)
        best = np.argsort(-scores, kind="stable")[:depth]
        return dict(zip(rows["number"][may][best].tolist(), scores[best].tolist(), strict=True))

    def _vectors(self) -> dict[str, np.ndarray]:
        """Return all vectors and labels, in the order of ties; in memory until somebody writes."""
        [version] = self.base.execute("pragma data_version").fetchone()
        if version != self._version:
            ask = f"select number, access, edition, vector from chunks order by {_TIES}"
            number, access, edition, blobs = zip(*self.base.execute(ask), strict=True)
            matrix = np.frombuffer(b"".join(blobs), np.float32).reshape(len(number), self.width)
            self._rows = {"number": np.array(number), "access": np.array(access)}
            self._rows |= {"edition": np.array(edition), "matrix": matrix}
            self._version = version
        return self._rows

    def _read(self, number: int) -> tuple[str, str, str, int, int]:
        ask = (
            "select page, text, access, edition, place from chunks"
            " join words on words.rowid = number where number = ?"
        )
        return self.base.execute(ask, (number,)).fetchone()
