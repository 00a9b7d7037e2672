"""What was done in the course so far, as the progress file on this machine says it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path

from ftcourse.check.progress import Entry, path_of_progress, progress
from ftcourse.errors import CourseError
from ftcourse.files import course_path, user_path, write_whole
from ftcourse.source import hang

_TITLE = "Exercises of ftcourse: a record"
_LIMITS = "It says what one file on this machine holds, not who answered. It is no certificate."


@dataclass(frozen=True)
class Completion:
    """A record of the exercises: a line for the file, for each lesson, for what is left over."""

    facts: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        """Return the record as a text, in lines of at most 80 columns."""
        rows = (hang(f"{name:21}", text) for name, text in self.facts)
        return "\n".join([_TITLE, *rows, hang("", _LIMITS)])

    def _repr_html_(self) -> str:
        pairs = ((escape(name), escape(text)) for name, text in self.facts)
        rows = "".join(f"<tr><th scope=row>{name}</th><td>{text}</td></tr>" for name, text in pairs)
        return f"<table><caption>{_TITLE}</caption>{rows}</table><p>{_LIMITS}</p>"

    def save(self, path: str | Path) -> Path:
        """Write the record as a new page of HTML; a file that is there is never touched."""
        path = user_path(path)
        head = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{_TITLE}</title>'
        try:
            if path.exists() or path.is_symlink():
                raise FileExistsError(0, "there is a file already")
            write_whole(path, f"{head}{self._repr_html_()}</html>\n")
        except OSError as error:
            must = "A record is saved as a new file, in a folder that can be written."
            raise CourseError(must, f"{path}: {error.strerror}", "Choose another name.") from error
        return path


def read_completion(exercises: Iterable[str]) -> Completion:
    """Return what the progress file says of all exercises, each in the lesson that asks for it."""
    path = path_of_progress()
    try:
        entries = progress()
        when = f"as of {date.fromtimestamp(path.stat().st_mtime)}" if path.exists() else "not there"
    except OSError as error:
        must, do = "The progress file can be read.", "Change its rights, or name another file."
        raise CourseError(must, f"{path}: {error.strerror}", do) from error
    asks = {
        name: file.name
        for file in sorted(course_path("notebooks").glob("*.ipynb"), reverse=True)
        for name in re.findall(r"\bcheck\.(\w+)", file.read_text(encoding="utf-8"))
    }
    lessons, known = {}, list(exercises)
    for name in known:
        lessons.setdefault(asks.get(name, "no lesson"), []).append(name)
    facts = [("file", f"{path.name}, {when}"), ("made on", str(date.today()))]
    facts.append(("all", _count(known, entries).partition(";")[0]))
    facts += [(lesson, _count(names, entries)) for lesson, names in sorted(lessons.items())]
    others = [name for name in entries if name not in known]
    facts += [("of another edition", f"{name!r}: {_count([name], entries)}") for name in others]
    aside = (file.name for file in path.parent.glob("*.damaged-*.json"))
    mine = sorted(name for name in aside if name.startswith(f"{path.stem}.damaged-"))
    facts += [("set aside", f"{name}: damaged, kept, not counted") for name in mine]
    return Completion(tuple(facts))


def _count(names: list[str], entries: dict[str, Entry]) -> str:
    kept = [entries[name] for name in names if name in entries]
    missing = [name for name in names if name not in entries or not entries[name]["passed"]]
    tries = sum(entry["tries"] for entry in kept)
    said = f"{len(names) - len(missing)} of {len(names)} passed, tries: {tries}"
    return f"{said}; open: {', '.join(missing)}" if missing else said
