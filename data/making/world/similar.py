"""Pages of drones whose names begin like the ten: Wren Mini, Wren Pro, Wren XL and so on."""

import random
from dataclasses import replace

from data.making.world.handbook import Fact, editions, pages
from data.making.world.names import clock_time, number_value, table

VARIANTS = ("Mini", "Pro", "XL")


def similar_pages(seed: int = 0) -> dict[str, str]:
    """Return 120 pages: four for each variant of each drone."""
    return pages(similar_facts(seed), 1)


def similar_facts(seed: int = 0) -> list[Fact]:
    """Return the variants' facts; a drone and its variants never share a value of an attribute."""
    rng = random.Random(f"similar {seed}")
    facts = []
    for fact, values in true_values():
        for variant in VARIANTS:
            value = other_value(rng, fact, values)
            values.add(value)
            subject = f"{fact.subject} {variant}"
            facts.append(replace(fact, subject=subject, value=value, wording=rng.randrange(2)))
    return sorted(facts, key=lambda fact: fact.subject)


def true_values() -> list[tuple[Fact, set[str]]]:
    """Return each drone fact of the first edition with its values in both editions."""
    pairs = zip(*editions(), strict=True)
    return [(old, {old.value, new.value}) for old, new in pairs if old.kind == "drone"]


def subject_values(subject: str) -> frozenset[str]:
    """Return every value that either edition states about a subject."""
    both = (fact for facts in editions() for fact in facts)
    return frozenset(fact.value for fact in both if fact.subject == subject)


def other_value(rng: random.Random, fact: Fact, taken: set[str] | frozenset[str]) -> str:
    """Return a value of the fact's kind that is not among those taken."""
    form = fact.entry["value"]
    if "{n}" in form:
        value = number_value(rng, fact.entry)
    elif form == "<time>":
        value = clock_time(rng)
    else:
        pool = form[form.index("<") + 1 : form.index(">")]
        value = form.replace(f"<{pool}>", rng.choice(table("words")["handbook"][pool]))
    return value if value not in taken else other_value(rng, fact, taken)
