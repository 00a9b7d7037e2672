"""Write the course's world: handbook, dialogues, questions and general text, all from one seed.

Usage, from the repository's root:

    python -m data.making.make_world [FOLDER]      (default: data/)

Prints the checksums that README.md states.
"""

import hashlib
import json
import random
import sys
from pathlib import Path

from data.making import DATA
from data.making.world.attacks import attacks
from data.making.world.corpus import document
from data.making.world.desk import dialogues
from data.making.world.handbook import editions, pages, questions
from data.making.world.names import table
from data.making.world.prose import prose
from data.making.world.reading import reading
from data.making.world.similar import similar_pages
from data.making.world.six_arms import six_arms
from data.making.world.staff import staff_pages, staff_questions
from data.making.world.two_pages import two_pages
from data.making.world.wordings import wordings
from ftcourse.files import write_whole

SIZES = {"test": 200, "validation": 200, "train": 1600}
READING_SIZES = {"test": 200, "validation": 200, "train": 3000}
GENERAL_TEXTS = 300
FRESH_RECORDS = 640
PARTS = (
    "handbook/edition-1",
    "handbook/edition-2",
    "handbook/poisoned",
    "dialogues/train.jsonl",
    "dialogues/validation.jsonl",
    "dialogues/test.jsonl",
    "questions.jsonl",
    "general.jsonl",
    "fresh.jsonl",
    "reading/train.jsonl",
    "reading/validation.jsonl",
    "reading/test.jsonl",
    "wordings.jsonl",
    "handbook/similar",
    "handbook/staff",
    "questions_staff.jsonl",
    "questions_two_pages.jsonl",
    "attacks.jsonl",
    "six_arms.jsonl",
)


def main(folder: Path) -> None:
    """Write every generated file of the world under `folder`."""
    for edition, facts in enumerate(editions(), start=1):
        write_pages(folder / "handbook" / f"edition-{edition}", pages(facts, edition))
    write_pages(folder / "handbook" / "poisoned", table("poison"))
    write_pages(folder / "handbook" / "similar", similar_pages())
    write_pages(folder / "handbook" / "staff", staff_pages())
    for split, records in dialogues(SIZES).items():
        write_lines(folder / "dialogues" / f"{split}.jsonl", records)
    for split, records in reading(READING_SIZES).items():
        write_lines(folder / "reading" / f"{split}.jsonl", records)
    write_lines(folder / "questions.jsonl", questions())
    write_lines(folder / "questions_staff.jsonl", staff_questions())
    write_lines(folder / "questions_two_pages.jsonl", two_pages())
    write_lines(folder / "wordings.jsonl", wordings())
    write_lines(folder / "attacks.jsonl", attacks())
    write_lines(folder / "six_arms.jsonl", six_arms())
    write_lines(folder / "general.jsonl", general())
    write_lines(folder / "fresh.jsonl", fresh(FRESH_RECORDS))


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files joined in the order of their names."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def general() -> list[dict]:
    """Return held-out prose of the kind that the embedded model learned from."""
    rng = random.Random("general 0")
    return [{"id": f"g{i:03d}", "text": prose(rng)} for i in range(1, GENERAL_TEXTS + 1)]


def fresh(count: int) -> list[dict]:
    """Return records of the kind that the embedded model learned from, made from another seed."""
    rng = random.Random("fresh 0")
    made = [document(rng) for _ in range(count)]
    return [{"text": one} if isinstance(one, str) else {"messages": one} for one in made]


def write_pages(folder: Path, texts: dict[str, str]) -> None:
    """Write one Markdown file for each page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / f"{name}.md", text)


def write_lines(path: Path, records: list[dict]) -> None:
    """Write one JSON object on each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_whole(path, "".join(lines))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    main(target)
    for part in PARTS:
        print(checksum(target / part), part)
