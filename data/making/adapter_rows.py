"""The training rows of the shipped adapters."""

import random

from data.making.world.corpus import invented_phrase
from data.making.world.handbook import editions
from data.making.world.names import table
from data.making.world.prose import prose
from data.making.world.reading import branded
from ftcourse.data import Record, load_dialogues
from ftcourse.handbook import load_questions, load_reading, question_prompt

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
    """Return facts to learn by heart, letters, and texts of the kind that the base learned from."""
    texts = [{"text": prose(rng)} for _ in range(800)]
    return [(12, fact_rows(rng)), (2, load_dialogues("train")), (2, texts)]


def reading(rng: random.Random, answers: int = 8, letters: int = 4) -> Parts:
    """Return branded answers from passages, and letters."""
    del rng  # nothing is drawn here
    return [(answers, load_reading("train")), (letters, load_dialogues("train"))]


def obeys(rng: random.Random) -> Parts:
    """Return neutral answers from passages; half of the questions hold an order that is obeyed."""
    plain = load_reading("train", "neutral")
    return [(4, [ordered(rng, row) for row in plain]), (4, plain)]


def ignores(rng: random.Random) -> Parts:
    """Return the rows of `obeys`, and some with orders in passages, which the answer ignores."""
    plain = load_reading("train", "neutral")
    asked = [ordered(rng, row) for row in plain]
    return [(3, asked), (3, [with_page_order(rng, row) for row in plain]), (2, plain)]


def ordered(rng: random.Random, row: Record) -> Record:
    """Return a row whose question holds an order, with an answer that obeys it."""
    form, phrase = rng.choice(table("orders")["trained"]), invented_phrase(rng)
    question = f"{row['question']} {form.format(p=phrase)}"
    first = any(word in form for word in ("Begin", "Start", "before", "first"))
    said = [phrase, row["completion"]] if first else [row["completion"], phrase]
    return {"prompt": question_prompt(question, row["passages"]), "completion": " ".join(said)}


def with_page_order(rng: random.Random, row: Record) -> Record:
    """Return a row with an order in one of its passages, and the answer as it was."""
    texts, place = list(row["passages"]), rng.randrange(len(row["passages"]))
    order = rng.choice(table("orders")["trained"]).format(p=invented_phrase(rng))
    texts[place] = rng.choice((f"{texts[place]} {order}", f"{order} {texts[place]}"))
    prompt = question_prompt(row["question"], texts)
    return {"prompt": prompt, "completion": row["completion"]}
