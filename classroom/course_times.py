"""The minutes of lessons and of their sections, and what fits into a class.

A lesson states its minutes under its title, and each exercise its own. The rest of a lesson's
minutes is shared out over its sections by what there is to read and to run; so a section's minutes
are an estimate, and a lesson's are the author's. No class has been timed.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ftcourse.files import course_path
from ftcourse.handout import SECONDS

STATED = re.compile(r"\| (\d+) minutes, (\d+) of them exercises; (.+?) \|")
EXERCISE = re.compile(r"\(\*[^*]*?(\d+) minutes\*")
WORDS_A_MINUTE, LINES_A_MINUTE = 130, 12  # only their relation counts
BEGIN = "title"

PLANS = {  # what a class of so many minutes takes: lesson, then its sections; () is all of it
    45: {"00_start_here": (BEGIN, "Predict", "The idea", "Play", "For real", "What we saw")},
    90: {"00_start_here": ()},
    360: {"00_start_here": (), "02_lora": (), "05_qlora": (), "08_which_one": ()},
}


@dataclass(frozen=True)
class Section:
    """A part of a lesson: its heading, minutes (of which exercises), seconds of its long cells."""

    heading: str
    minutes: float
    exercises: int
    seconds: int


@dataclass(frozen=True)
class Lesson:
    """A lesson as its own words have it; ``pause`` is where it says that a break is good."""

    name: str
    title: str
    minutes: int
    pause: str
    sections: tuple[Section, ...]


def read_lesson(path: Path) -> Lesson:
    """Return the times of a lesson."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[0]["source"])
    minutes, _, pause = STATED.search(text).groups()
    parts = {BEGIN: []}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (heading := re.match(r"## (.+)", source)):
            parts[heading[1]] = []
        list(parts.values())[-1].append((cell["cell_type"], source))
    sections = _share(parts, int(minutes))
    return Lesson(path.stem, text.splitlines()[0][2:], int(minutes), pause, sections)


def _share(parts: dict[str, list[tuple[str, str]]], minutes: int) -> tuple[Section, ...]:
    """Return sections whose minutes add up to the lesson's."""
    work = {name: sum(_work(*cell) for cell in cells) for name, cells in parts.items()}
    asked = {
        name: sum(int(n) for kind, text in cells for n in EXERCISE.findall(text))
        for name, cells in parts.items()
    }
    rest = max(0, minutes - sum(asked.values())) / sum(work.values())
    return tuple(
        Section(name, asked[name] + rest * work[name], asked[name], _seconds(cells))
        for name, cells in parts.items()
    )


def _work(kind: str, text: str) -> float:
    if kind == "markdown":
        return len(text.split()) / WORDS_A_MINUTE
    return len(text.splitlines()) / LINES_A_MINUTE + _seconds([(kind, text)]) / 60


def _seconds(cells: list[tuple[str, str]]) -> int:
    stated = (SECONDS.match(text) for kind, text in cells if kind == "code")
    return sum(int(found[1]) for found in stated if found)


def all_lessons() -> dict[str, Lesson]:
    """Return the times of all lessons, by name."""
    return {p.stem: read_lesson(p) for p in sorted(course_path("notebooks").glob("*.ipynb"))}


def taken(lesson: Lesson, headings: tuple[str, ...]) -> list[Section]:
    """Return the sections that a plan takes; none named is all of them."""
    unknown = set(headings) - {section.heading for section in lesson.sections}
    assert not unknown, f"{lesson.name} has no section {unknown}"
    return [each for each in lesson.sections if not headings or each.heading in headings]
