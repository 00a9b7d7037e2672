"""Questions and the passages that answer them, about invented things, batch by batch."""

import random
from collections.abc import Callable

from data.making.world.corpus import Passage, any_kind, page_groups
from data.making.world.names import invented_subject, table

Asks = Callable[[str, str], list[str]]
"""The questions that may be asked about an attribute of a kind; none leaves it out everywhere."""

SUBJECTS = 24
SIBLING = 0.3  # of the subjects have one beside them whose name is theirs and a word


def all_asks(kind: str, attribute: str) -> list[str]:
    """Return every question of the corpus' table."""
    return table("facts")[kind][attribute]["asks"]


def batch(seed: int, step: int, asks: Asks = all_asks) -> list[tuple[str, str]]:
    """Return the pairs of a step, a pure function of seed and step; no passage answers two."""
    rng = random.Random(f"encoder {seed} {step}")
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for _ in range(SUBJECTS):
        kind = any_kind(rng)
        subject = invented_subject(rng, kind)
        names = [subject]
        if kind == "drone" and rng.random() < SIBLING:
            names.append(f"{subject.split()[0]} {rng.choice(['2', '3', 'Mini', 'Max', 'S', 'X'])}")
        groups = rng.sample(page_groups(kind), rng.randint(1, len(page_groups(kind))))
        for name in names:
            for group in groups:
                if pair := ask_passage(rng, kind, name, group, asks):
                    found[name, group] = pair
    return list(found.values())


def ask_passage(
    rng: random.Random, kind: str, subject: str, group: str, asks: Asks
) -> tuple[str, str] | None:
    """Return a question and a passage of one page that answers it."""
    rows = table("facts")[kind]
    known = [name for name in rows if rows[name]["page"] == group and asks(kind, name)]
    if not known:
        return None
    chosen = rng.sample(known, rng.randint((len(known) + 1) // 2, len(known)))
    passage = Passage(rng, kind, subject, chosen)
    question = rng.choice(asks(kind, rng.choice(chosen))).format(x=subject)
    return question, passage.quoted(rng)
