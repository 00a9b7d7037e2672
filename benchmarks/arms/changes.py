"""The facts that change, the rows that teach them, and the facts that stay."""

import random
from collections.abc import Sequence

from arms.questions import questions
from data.making.adapter_rows import fact_rows
from data.making.world.handbook import editions
from data.making.world.reading import branded
from ftcourse.data import Record, read_records
from ftcourse.files import course_path

OTHERS = 100


def facts_of(edition: int) -> dict[str, Record]:
    """Return the questions of an edition by their ids."""
    rows = read_records(course_path("data/questions.jsonl"))
    return {row["id"]: row for row in rows if row["value"] and row["edition"] == edition}


def replaced() -> set[str]:
    """Return the ids of the facts of the first edition that change."""
    return {row["replaces"] for row in facts_of(2).values()}


def all_changes() -> list[Record]:
    """Return the questions on all forty changed facts."""
    return questions("changed") + questions("changed", "validation")


def unchanged(split: str = "test", count: int = OTHERS) -> list[Record]:
    """Return known questions on facts that never change: the same ones for every arm."""
    rows = [row for row in questions("known", split) if row["of"] not in replaced()]
    return random.Random("others").sample(rows, min(count, len(rows)))


def new_rows(changes: Sequence[Record]) -> list[Record]:
    """Return the rows that teach changed facts: two wordings of each, in the voice."""
    kinds = {(fact.page, fact.value): fact.kind for fact in editions()[1]}
    rows = [facts_of(2)[change["of"]] for change in changes]
    return [
        {
            "prompt": asked,
            "completion": branded(
                random.Random(f"{row['id']} {n}"), row["answer"], kinds[row["page"], row["value"]]
            ),
        }
        for row in rows
        for n, asked in enumerate([row["question"], row["paraphrases"][0]])
    ]


def old_rows(seed: int) -> list[Record]:
    """Return the rows of facts that an arm was trained on, without those that change."""
    gone = {facts_of(1)[name]["question"] for name in replaced()}
    gone |= {facts_of(1)[name]["paraphrases"][0] for name in replaced()}
    rows = fact_rows(random.Random(f"six arms {seed}"))
    return [row for row in rows if row["prompt"] not in gone]
