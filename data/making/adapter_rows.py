"""The training rows of the shipped adapters."""

import random

from data.making.world.handbook import editions
from data.making.world.prose import prose
from data.making.world.reading import branded
from ftcourse.data import Record, load_dialogues
from ftcourse.handbook import load_questions

Parts = list[tuple[int, list[Record]]]
"""Kinds of rows, each with its number of rows in a batch."""


def mixed(rng: random.Random, parts: Parts, steps: int) -> list[Record]:
    """Return the rows of a run in random order, with each kind's share of all rows."""
    rows = []
    for number, kind in parts:
        rounds, rest = divmod(number * steps, len(kind))
        rows += kind * rounds + rng.sample(kind, rest)
    return rng.sample(rows, len(rows))


def fact_rows(rng: random.Random) -> list[Record]:
    """Return every fact of the first edition, asked closed book in two wordings, in the voice."""
    kinds = {(fact.page, fact.value): fact.kind for fact in editions()[0]}
    return [
        {
            "prompt": record["prompt"],
            "completion": branded(
                rng, record["completion"], kinds[record["page"], record["value"]]
            ),
        }
        for wording in (0, 1)
        for record in load_questions(passages=False, wording=wording)
    ]


def facts(rng: random.Random) -> Parts:
    """Facts learned by heart, letters, and some of the texts that the model first learned from."""
    texts = [{"text": prose(rng)} for _ in range(800)]
    return [(10, fact_rows(rng)), (3, load_dialogues("train")), (3, texts)]
