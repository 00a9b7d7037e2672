"""What a store refuses, and how its index remembers what it was made with."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ftcourse.errors import CourseError, check_choice
from ftcourse.retrieval.chunks import Chunk, Chunker
from ftcourse.retrieval.lexical import content_words
from ftcourse.retrieval.pages import Page, check_keys, check_label

WAYS = ("lexical", "dense", "hybrid")


def choices_of(embed: Any, width: int, chunker: Any, labels: frozenset[str]) -> dict[str, str]:
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


def check_same(place: object, kept: dict[str, str], given: dict[str, str]) -> None:
    """Refuse an index that was made in another way than it is opened."""
    for name, value in given.items():
        if kept.get(name) != value:
            raise CourseError(
                f"An index is opened with the {name} that it was made with.",
                f"{place} was made with {name}: {kept.get(name)}; now it is {value}",
                f"Give the same {name} to open_store, or add the pages to a new index.",
            )


def find_chunker(place: object, chunker: Any, kept: str | None) -> Any:
    """Return the chunker that was given, or else the one that an index was made with."""
    if chunker is not None or kept is None:
        return chunker or Chunker()
    way, *rest = kept.replace("words of ", "words ").replace(", overlap", "").split()
    try:
        return Chunker(way, *map(int, rest))
    except (CourseError, TypeError, ValueError) as error:
        must = "An index is opened with the chunker that it was made with."
        got = f"{place} was made with chunker: {kept}"
        raise CourseError(must, got, f"Give chunker={kept}.") from error


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


def make_chunks(chunker: Callable[[Page], list[Chunk]], page: Page) -> list[Chunk]:
    """Return the chunks of a page, which carry its id, its label and its edition."""
    chunks = chunker(page)
    right = isinstance(chunks, list) and chunks and all(isinstance(c, Chunk) for c in chunks)
    own = (page.id, page.access, page.edition)
    if not right or any((c.page, c.access, c.edition) != own for c in chunks):
        must = "A chunker returns a list of Chunk with the id, label and edition of their page."
        got = f"page {page.id!r}: {chunks!r}"[:200]
        do = "Return Chunk(page.id, text, page.access, page.edition) for each piece."
        raise CourseError(must, got, do)
    return chunks


def make_vectors(embed: Any, texts: Sequence[str], width: int | None = None) -> np.ndarray:
    """Return a row of length 1 for each text. Shape (texts, width), float32."""
    rows = np.asarray(embed(list(texts)), dtype=np.float32)
    fits = rows.ndim == 2 and len(rows) == len(texts) and width in (None, rows.shape[-1])
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True) if fits else np.zeros(1)
    if not fits or not np.isfinite(lengths).all() or not lengths.all():
        must = "embed(texts) gives a row of numbers for each text, all of one width, none all 0."
        got = f"{name_of(embed)}: shape {rows.shape} for {len(texts)} texts"
        raise CourseError(must, got, "Correct the function, or use load_encoder('embedded').")
    return rows / lengths


def check_search(
    store: Any, query: str, k: int, allowed: Collection[str], edition: int | None, how: str
) -> tuple[list[str], list[str]]:
    """Return the words of a query and the labels that may be read, or refuse the search."""
    check_choice("how", how, WAYS)
    if not isinstance(query, str) or not query.strip():
        must = "A query has a word or a number."
        raise CourseError(must, repr(query)[:200], "Ask in words.")
    if type(k) is not int or not 1 <= k <= len(store):
        must = f"k is 1 to {len(store)}, the chunks that are here."
        must = must if len(store) else "A store has pages before it is searched."
        raise CourseError(must, f"k={k!r} of {len(store)} chunks", "Try k=3, or add pages.")
    if isinstance(allowed, str) or not isinstance(allowed, Collection) or not allowed:
        must = "allowed is the set of labels that the reader may see."
        raise CourseError(must, f"allowed={allowed!r}"[:200], 'Try allowed={"public"}.')
    for label in allowed:
        check_label(label, store.labels, "allowed")
    if edition is not None and (type(edition) is not int or edition not in store.editions):
        must = f"The pages here are of edition {', '.join(map(str, store.editions))}."
        do = "Choose one of these, or add the pages of the edition first."
        raise CourseError(must, f"edition={edition!r}", do)
    if how != "lexical" and store.embed is None:
        must = "Dense and hybrid search need vectors."
        do = 'Make the index with open_store(path, embed=load_encoder("embedded")).'
        raise CourseError(must, f"{store.path} was made without embed", do)
    return content_words(query), sorted(allowed)


def no_page(page_id: str, edition: int | None) -> CourseError:
    """Return the error of a page that is not here."""
    must = "A page that is updated or deleted is here."
    got = f"no page {page_id!r}" + (f" of edition {edition}" if edition else "")
    return CourseError(must, got, "Look at store.pages, or add it with store.add([page]).")
