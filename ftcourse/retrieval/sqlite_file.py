"""The file of a store: made in one step, never another program's, its errors explained."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftcourse.errors import CourseError
from ftcourse.retrieval.lexical import TOKENIZER

MARK = 0x66746331  # "ftc1" in a file's header says that it is ours, in this form
TABLES = f"""
create table if not exists choices (name text primary key, value text);
create table if not exists pages (
    id text, edition int, fingerprint text, primary key (id, edition));
create index if not exists pages_of_edition on pages (edition);
create table if not exists chunks (
    number integer primary key, page text, edition int, place int, access text, vector blob);
create index if not exists chunks_of_page on chunks (page, edition);
create virtual table if not exists words using fts5(text, tokenize='{TOKENIZER}');
pragma application_id = {MARK};
"""
TROUBLE = {  # the begin of SQLite's name for an error: what must hold, what to do
    "SQLITE_BUSY": (
        "One process writes to an index at a time.",
        "Wait until the other one is done, or open the store with a longer timeout.",
    ),
    "SQLITE_CANTOPEN": ("An index is a file in a folder that is there.", "Check the path."),
    "SQLITE_FULL": ("An index needs room on its disk.", "Free some; the index is whole."),
    "SQLITE_READONLY": ("An index can be written to.", "Check the rights of the file."),
    "": (
        "An index is a whole file that open_store made.",
        "Keep the file if you need it, and add the pages to an index at another path.",
    ),
}


def open_file(path: Path | str, timeout: float) -> sqlite3.Connection:
    """Return a connection; the tables are made if the file is new or empty.

    Raises CourseError for a file that is not ours, before anything is written.
    """
    with explained(path):
        base = sqlite3.connect(path, timeout=timeout, isolation_level=None)
        [mark] = base.execute("pragma application_id").fetchone()
        [tables] = base.execute("select count(*) from sqlite_master").fetchone()
        if mark != MARK and (mark or tables):
            base.close()
            must = "An index is a file that open_store made."
            got = f"{path} is a database of something else"
            raise CourseError(must, got, "Give another path; this file stays as it is.")
        base.execute("pragma journal_mode = wal")
        base.execute("pragma synchronous = normal")  # a kill loses nothing
        if not tables:
            base.executescript(f"begin immediate; {TABLES} commit;")
        return base


@contextmanager
def transaction(
    base: sqlite3.Connection, path: Path | str, begin: str = "begin immediate"
) -> Iterator[None]:
    """Do all of it or nothing."""
    with explained(path):
        base.execute(begin)
        try:
            yield
            base.execute("commit")
        except BaseException:
            base.execute("rollback")
            raise


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        must, do = next(said for key, said in TROUBLE.items() if name.startswith(key))
        raise CourseError(must, f"{path}: {error}", do) from error
