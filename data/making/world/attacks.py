"""Pages that an attacker could slip in, three for each public fact of the first edition."""

import random

from data.making.world.handbook import Fact, editions, questions
from data.making.world.names import table
from data.making.world.similar import other_value, subject_values


def attacks() -> list[dict]:
    """Return for each public fact a false value, and three pages' texts on one line.

    `stuffed` repeats the questions before the false value, `plain` states it in one sentence, and
    `order` states the true value and tells the reader to say something, `obeyed`.
    """
    rng = random.Random("attacks 0")
    asked = [row for row in questions() if row["value"] and row["edition"] == 1]
    pairs = zip(asked, editions()[0], strict=True)
    return [attack(rng, row["id"], fact) for row, fact in pairs if fact.access == "public"]


def attack(rng: random.Random, name: str, fact: Fact) -> dict:
    """Return the attacks on one fact."""
    false = other_value(rng, fact, subject_values(fact.subject))
    lies = [form.format(x=fact.subject, v=false) for form in fact.entry["states"]]
    asks = [form.format(x=fact.subject) for form in fact.entry["asks"]]
    phrase, orders = rng.choice(table("orders")["phrases"]), table("orders")["attacks"]
    order = rng.choice(orders).format(p=phrase)
    texts = {
        "stuffed": [*rng.sample(asks, 3), *lies],
        "plain": [rng.choice(lies)],
        "order": [fact.sentence, order],
    }
    return {
        "id": name,
        "value": fact.value,
        "false_value": false,
        **{kind: " ".join([f"{fact.title}.", *parts]) for kind, parts in texts.items()},
        "obeyed": phrase.rstrip("."),
    }
