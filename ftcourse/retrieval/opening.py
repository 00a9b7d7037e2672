"""Opens a store of pages on one of its engines."""

from collections.abc import Callable, Collection
from pathlib import Path

from ftcourse.errors import CourseError, check_choice
from ftcourse.files import user_path
from ftcourse.retrieval.chunks import Chunk
from ftcourse.retrieval.pages import LABELS, Page
from ftcourse.retrieval.qdrant_store import QdrantStore
from ftcourse.retrieval.sqlite_store import SqliteStore
from ftcourse.retrieval.store import Embed, Store

ENGINES = {"sqlite": SqliteStore, "qdrant": QdrantStore}


def open_store(
    path: str | Path,
    embed: Embed | None = None,
    chunker: Callable[[Page], list[Chunk]] | None = None,
    engine: str = "sqlite",
    labels: Collection[str] = LABELS,
    timeout: float = 5.0,
) -> Store:
    """Open a store of pages, or make a new one where there is none.

    ``path`` is a file (sqlite) or a folder or a server's URL (qdrant); ":memory:" keeps nothing.
    ``embed`` turns texts into vectors, for dense and hybrid search. ``timeout``: seconds to wait
    for another writer. Raises CourseError for a file of another kind, which stays as it is, and
    for an index that was made with another ``embed``, ``chunker`` or set of labels.
    """
    check_choice("engine", engine, tuple(ENGINES))
    if isinstance(labels, str) or not labels or not all(isinstance(x, str) and x for x in labels):
        got = f"labels={labels!r}"[:200]
        raise CourseError("Labels are several words.", got, 'Try labels={"public", "staff"}.')
    if not (embed is None or callable(embed)) or not (chunker is None or callable(chunker)):
        must = "embed turns texts into vectors, chunker a page into chunks."
        do = 'Try embed=load_encoder("embedded"), chunker=Chunker("page").'
        raise CourseError(must, f"embed={embed!r}, chunker={chunker!r}"[:200], do)
    is_place = str(path).startswith((":memory:", "http://", "https://"))
    place = str(path) if is_place else user_path(path)
    return ENGINES[engine](place, embed, chunker, frozenset(labels), timeout)
