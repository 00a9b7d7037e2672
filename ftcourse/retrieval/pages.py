"""Pages: texts with an id, a label that says who may read them, and an edition."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ftcourse.errors import CourseError, check_kind
from ftcourse.files import user_path

LABELS = ("public", "staff")
"""Who may read a page of the handbook."""

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*\n(.*)\Z", re.DOTALL | re.MULTILINE)
_FORM = "Begin it with the lines ---, id: wren-flight, access: public, edition: 1, ---."


@dataclass(frozen=True)
class Page:
    """A page without its front matter; its id and its edition together are its key."""

    id: str
    title: str
    text: str
    access: str
    edition: int

    def __post_init__(self) -> None:
        """Refuse a page without an id, a text, a label or an edition."""
        must = "A page has an id, a title, a text and a label in words, and an edition from 1 on."
        for name in ("id", "title", "text", "access"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip() or not _is_whole(value):
                got = f"page {self.id!r}: {name}={value!r}"[:200]
                raise CourseError(must, got, f"Give a {name} in words.")
        if type(self.edition) is not int or not 1 <= self.edition < 2**31:
            got = f"page {self.id!r}: edition={self.edition!r}"[:200]
            raise CourseError(must, got, "Count the editions 1, 2, 3.")

    @property
    def key(self) -> tuple[str, int]:
        """The id and the edition."""
        return self.id, self.edition

    @property
    def fingerprint(self) -> str:
        """A short hash of all that the page says: two pages are equal if theirs are."""
        whole = "\0".join([self.title, self.text, self.access])
        return sha256(whole.encode()).hexdigest()[:16]


def read_page(path: str | Path, labels: Collection[str] = LABELS) -> Page:
    """Return the page of a Markdown file that begins with id, access and edition.

    Raises CourseError for a file without this front matter, and for a label that is none of
    ``labels``: a page with a mistyped label must not become public.
    """
    path = user_path(path)
    try:
        whole = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"{path}: {error}"
        raise CourseError("A page is a UTF-8 text.", got, "Save it as UTF-8.") from error
    except OSError as error:
        got = f"{path}: {error.strerror}"
        raise CourseError("A page is a file that can be read.", got, "Check the path.") from error
    front = _FRONT.match(whole)
    lines = front[1].splitlines() if front else []
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if missing := [name for name in ("id", "access", "edition") if not facts.get(name)]:
        got = f"{path} without {', '.join(missing)}"
        raise CourseError("A page begins with its id, its label and its edition.", got, _FORM)
    check_label(facts["access"], labels, str(path))
    if not facts["edition"].isdecimal():
        got = f"{path}: edition: {facts['edition']}"
        raise CourseError("An edition is a whole number.", got, _FORM)
    text = front[2].strip()
    title = re.search(r"(?m)^#+\s+(.+?)\s*$", text)
    name = title[1] if title else facts["id"]
    if not text:
        got = f"{path}: nothing after the front matter"
        raise CourseError("A page has a text.", got, "Write the text, or delete the file.")
    return Page(facts["id"], name, text, facts["access"], int(facts["edition"]))


def read_pages(folder: str | Path, labels: Collection[str] = LABELS) -> list[Page]:
    """Return the pages of all .md files in a folder, in the order of their names."""
    folder = user_path(folder)
    files = sorted(folder.glob("*.md")) if folder.is_dir() else []
    if not files:
        must = "A folder of pages holds .md files."
        raise CourseError(must, f"{folder} without any", "Check the path.")
    pages = [read_page(file, labels) for file in files]
    check_keys(pages)
    return pages


def check_label(label: object, labels: Collection[str], place: str) -> None:
    """Refuse a label that is none of the labels."""
    if label not in labels:
        must = f"A label is one of {', '.join(map(repr, sorted(labels)))}."
        do = "Correct it. A page with an unknown label is shown to nobody."
        raise CourseError(must, f"{place}: {label!r}"[:200], do)


def check_keys(pages: Collection[Page]) -> None:
    """Refuse what is no page, and two pages with one id in one edition."""
    seen = set()
    for page in pages:
        check_kind("page", page, Page, "read_page('wren-flight.md')")
        if page.key in seen:
            must = "Each id names one page of an edition."
            got = f"two pages {page.id!r} of edition {page.edition}"
            raise CourseError(must, got, "Give one of them another id, or leave it out.")
        seen.add(page.key)


def _is_whole(text: str) -> bool:
    """Whether a text can be stored: it has no NUL and no half character."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
