"""Stores of pages: five methods, two engines. What both have in common is here."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from ftcourse.chat import bars_are_off
from ftcourse.errors import CourseError, check_choice
from ftcourse.files import user_path
from ftcourse.records import Record
from ftcourse.retrieval.chunks import Chunk, Chunker
from ftcourse.retrieval.lexical import content_words
from ftcourse.retrieval.pages import LABELS, Page, check_keys, check_label

PUBLIC = frozenset({"public"})
WAYS = ("lexical", "dense", "hybrid")
DEPTH = 100  # of each ranking that a hybrid search fuses
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Hit:
    """A chunk that a search found: its page's id, its text, how well it fits, and its labels."""

    page: str
    text: str
    score: float
    access: str
    edition: int


class Store(Protocol):
    """What every engine has; ``open_store`` is the fifth."""

    def add(self, pages: Iterable[Page]) -> None:
        """Add pages; those that are already there as they are take no time."""

    def update(self, page: Page) -> None:
        """Replace a page by its new text."""

    def delete(self, page_id: str, edition: int | None = None) -> None:
        """Delete a page, in all its editions or in one."""

    def search(
        self,
        query: str,
        k: int = 3,
        allowed: Collection[str] = PUBLIC,
        edition: int | None = None,
        how: str = "lexical",
    ) -> list[Hit]:
        """Return the k chunks that fit best among those that may be read."""

    @property
    def pages(self) -> list[tuple[str, int]]:
        """The id and the edition of each page."""


def open_store(
    path: str | Path,
    embed: Embed | None = None,
    chunker: Callable[[Page], list[Chunk]] | None = None,
    engine: str = "sqlite",
    labels: Collection[str] = LABELS,
    timeout: float = 5.0,
) -> Store:
    """Open a store of pages, or make a new one where there is none.

    ``path`` is a file, or ":memory:" (sqlite); a folder (qdrant). ``embed`` turns texts into
    vectors, for dense and hybrid search. ``timeout``: seconds to wait for another writer. Raises
    CourseError for a file of another kind, which stays as it is, and for an index that was made
    with another ``embed``, ``chunker`` or set of labels: its vectors and chunks would not fit.
    """
    check_choice("engine", engine, ("sqlite", "qdrant"))
    if isinstance(labels, str) or not labels or not all(isinstance(x, str) and x for x in labels):
        got = f"labels={labels!r}"[:200]
        raise CourseError("Labels are several words.", got, 'Try labels={"public", "staff"}.')
    if not (embed is None or callable(embed)) or not (chunker is None or callable(chunker)):
        must = "embed turns texts into vectors, chunker a page into chunks."
        do = 'Try embed=load_encoder("embedded"), chunker=Chunker("page").'
        raise CourseError(must, f"embed={embed!r}, chunker={chunker!r}"[:200], do)
    if engine == "qdrant":
        from ftcourse.retrieval.qdrant_store import QdrantStore as Engine
    else:
        from ftcourse.retrieval.sqlite_store import SqliteStore as Engine
    place = path if path == ":memory:" else user_path(path)
    return Engine(place, embed, chunker, frozenset(labels), timeout)


def choices_of(embed: Embed | None, width: int, chunker: Any, labels: frozenset) -> dict[str, Any]:
    """Return what an index writes down about how it was made."""
    return {
        "embed": "none" if embed is None else f"{name_of(embed)}, {width} numbers",
        "chunker": name_of(chunker),
        "labels": ", ".join(sorted(labels)),
    }


def name_of(function: Any) -> str:
    """Return the name that an encoder or a chunker has, or else the function's own."""
    own = getattr(function, "name", None) or getattr(function, "__qualname__", None)
    return str(own or type(function).__name__)


def check_same(place: object, kept: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse an index that was made in another way than it is opened."""
    for name, value in given.items():
        if kept[name] != value:
            raise CourseError(
                f"An index is opened with the {name} that it was made with.",
                f"{place} was made with {name}: {kept[name]}; now it is {value}",
                f"Give the same {name} to open_store, or add the pages to a new index.",
            )


def find_chunker(place: object, chunker: Any, kept: str | None) -> Any:
    """Return the chunker that was given, or else the one that an index was made with."""
    if chunker is not None or kept is None:
        return chunker or Chunker()
    head, *rest = kept.replace("words of ", "words ").replace(", overlap", "").split()
    try:
        return Chunker(head, *map(int, rest))
    except (CourseError, TypeError, ValueError) as error:
        must = "An index is opened with the chunker that it was made with."
        got = f"{place} was made with chunker: {kept}"
        raise CourseError(must, got, f"Give chunker={kept}.") from error


def make_chunks(chunker: Callable[[Page], list[Chunk]], page: Page) -> list[Chunk]:
    """Return the chunks of a page, which carry its id, its label and its edition."""
    chunks = chunker(page)
    right = isinstance(chunks, list) and chunks and all(isinstance(c, Chunk) for c in chunks)
    own = (page.id, page.access, page.edition)
    if not right or any((c.page, c.access, c.edition) != own for c in chunks):
        must = "A chunker returns a list of Chunk with the id, label and edition of their page."
        got = f"page {page.id!r}: {chunks!r}"[:200]
        raise CourseError(must, got, "Return chunks such as Chunk(page.id, text, page.access, 1).")
    return chunks


def make_vectors(embed: Embed, texts: Sequence[str], width: int | None = None) -> np.ndarray:
    """Return a row of length 1 for each text. Shape (texts, width), float32."""
    rows = np.asarray(embed(list(texts)), dtype=np.float32)
    fits = rows.ndim == 2 and len(rows) == len(texts) and width in (None, rows.shape[-1])
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True) if fits else np.zeros(1)
    if not fits or not np.isfinite(lengths).all() or not lengths.all():
        must = "embed(texts) gives a row of numbers for each text, all of one width, none all 0."
        got = f"{name_of(embed)}: shape {rows.shape} for {len(texts)} texts, width {width}"
        raise CourseError(must, got, "Correct the function, or use load_encoder('embedded').")
    return rows / lengths


def check_pages(pages: Iterable[Page], labels: frozenset[str]) -> list[Page]:
    """Return the pages as a list. Refuse double ids and unknown labels before any is written."""
    if isinstance(pages, str | Page) or not isinstance(pages, Iterable):
        must = "Pages are a list of Page."
        raise CourseError(must, repr(pages)[:200], "Try store.add(read_pages(folder)).")
    pages = list(pages)
    check_keys(pages)
    for page in pages:
        check_label(page.access, labels, f"page {page.id!r}")
    return pages


def check_search(
    query: str, k: int, allowed: Collection[str], how: str, labels: frozenset[str], count: int
) -> tuple[list[str], list[str]]:
    """Return the words of a query and the labels that may be read, or refuse the search."""
    check_choice("how", how, WAYS)
    if not isinstance(query, str) or not query.strip():
        must = "A query has a word or a number."
        raise CourseError(must, repr(query)[:200], "Ask in words.")
    if type(k) is not int or not 1 <= k <= count:
        must = f"k is 1 to {count}, the chunks that are here." if count else "A store has pages."
        do = "Try k=3, or add pages with store.add(pages)."
        raise CourseError(must, f"k={k!r} of {count} chunks", do)
    if isinstance(allowed, str) or not isinstance(allowed, Collection) or not allowed:
        must = "allowed is the set of labels that the reader may see."
        raise CourseError(must, f"allowed={allowed!r}"[:200], 'Try allowed={"public"}.')
    for label in allowed:
        check_label(label, labels, "allowed")
    return content_words(query), sorted(allowed)


def check_edition(edition: int | None, editions: Collection[int]) -> None:
    """Refuse an edition of which no page is there."""
    if edition is not None and (type(edition) is not int or edition not in editions):
        must = f"The pages here are of edition {', '.join(map(str, sorted(editions)))}."
        do = "Choose one of these, or add the pages of the edition first."
        raise CourseError(must, f"edition={edition!r}", do)


def find_all(store: Store, questions: Sequence[Record], k: int = 5, **search: Any) -> list[list]:
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


def no_embedder(place: object) -> CourseError:
    """Return the error of a dense search without vectors."""
    must = "Dense and hybrid search need vectors."
    do = 'Make the index with open_store(path, embed=load_encoder("embedded")).'
    return CourseError(must, f"{place} was made without embed", do)


def batches(pages: Sequence[Page], size: int = 64) -> Iterable[Sequence[Page]]:
    """Yield the pages in batches, with a bar if they take longer than two seconds."""
    with tqdm(total=len(pages), desc="pages", delay=2, leave=False, disable=bars_are_off()) as bar:
        for start in range(0, len(pages), size):
            yield pages[start : start + size]
            bar.update(len(pages[start : start + size]))
