"""Chunks: a page cut into the pieces that a search finds and a prompt quotes.

Every word of a page is in a chunk, in its order, and no chunk holds a word that its page lacks.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ftcourse.errors import CourseError, check_choice, check_kind
from ftcourse.retrieval.pages import Page

WAYS = ("page", "heading", "paragraph", "sentence", "words")


@dataclass(frozen=True)
class Chunk:
    """A piece of a page, which keeps the page's id, label and edition."""

    page: str
    text: str
    access: str
    edition: int


def chunk(
    page: Page,
    by: str = "page",
    length: int = 32,
    overlap: int = 8,
) -> list[Chunk]:
    """Return the chunks of a page, each on one line.

    ``by``: the whole page; each heading with its text; each
    paragraph; each sentence; or ``length`` words, of which the
    first ``overlap`` are also the last ones of the chunk before.
    """
    check_kind("page", page, Page, "read_page('wren-flight.md')")
    check_choice("by", by, WAYS)
    if by == "words":
        words = one_line(page.text).split()
        texts = [" ".join(w) for w in windows(words, length, overlap)]
    else:
        texts = [one_line(part) for part in _CUTS[by](page.text)]
    return [
        Chunk(page.id, text, page.access, page.edition)
        for text in texts
        if text  # a comment keeps the form narrow
    ]


def one_line(text: str) -> str:
    """Return Markdown on one line: a heading ends with a point.

    >>> one_line("# Wren: flight")
    'Wren: flight.'
    """
    ended = re.sub(
        r"(?m)^#+[ \t]+(.*?)([.!?]?)[ \t]*$",
        lambda heading: heading[1] + (heading[2] or "."),
        text,
    )
    return " ".join(ended.split())


def windows(
    words: list[str],
    length: int,
    overlap: int,
) -> list[list[str]]:
    """Return runs of ``length`` words; neighbours share ``overlap``.

    >>> windows("a b c d e".split(), length=3, overlap=1)
    [['a', 'b', 'c'], ['c', 'd', 'e']]
    """
    check_window(length, overlap)
    step = length - overlap
    last = max(len(words) - overlap, 1)
    return [words[i : i + length] for i in range(0, last, step)]


def check_window(length: int, overlap: int) -> None:
    """Refuse a window that never moves on."""
    whole = type(length) is int and type(overlap) is int
    if not whole or not 0 <= overlap < length:
        must = "A chunk has 1 word or more, and it overlaps by fewer than it has."
        got = f"length={length!r}, overlap={overlap!r}"[:200]
        raise CourseError(must, got, "Try length=32, overlap=8.")


_CUTS: dict[str, Callable[[str], list[str]]] = {
    "page": lambda text: [text],
    "heading": re.compile(r"(?m)^(?=#+[ \t])").split,
    "paragraph": re.compile(r"\n\s*\n").split,
    "sentence": lambda text: re.split(r"(?<=[.!?])\s+", one_line(text)),
}


@dataclass(frozen=True)
class Chunker:
    """The choices of ``chunk``, kept: a store writes them down beside its pages."""

    by: str = "page"
    length: int = 32
    overlap: int = 8

    def __post_init__(self) -> None:
        """Refuse choices that ``chunk`` would refuse."""
        check_choice("by", self.by, WAYS)
        check_window(self.length, self.overlap)

    def __call__(self, page: Page) -> list[Chunk]:
        """Return the chunks of a page."""
        return chunk(page, self.by, self.length, self.overlap)

    @property
    def name(self) -> str:
        """The choices in words, such as ``words of 32, overlap 8``."""
        if self.by != "words":
            return self.by
        return f"words of {self.length}, overlap {self.overlap}"
