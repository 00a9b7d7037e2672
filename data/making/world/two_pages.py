"""Questions that need two pages: chains through the staff's pages, and comparisons."""

import random
from itertools import count

from data.making.world.handbook import Fact, editions
from data.making.world.names import table
from data.making.world.staff import StaffFact, staff_facts

COMPARISONS = 8  # of each attribute


def two_pages() -> list[dict]:
    """Return 80 questions: 40 comparisons of public facts and 40 chains of staff facts."""
    rng = random.Random("two pages 0")
    number = count(1)
    return [row | {"id": f"t{next(number):03d}"} for row in comparisons(rng) + chains(rng)]


def comparisons(rng: random.Random) -> list[dict]:
    """Return questions that ask which of two drones has more of something, and how much."""
    records = []
    for attribute, form in table("staff")["compare"].items():
        facts = [fact for fact in editions()[0] if fact.attribute == attribute]
        pairs = [(one, other) for one in facts for other in facts if one.subject < other.subject]
        for pair in rng.sample(pairs, COMPARISONS):
            one, other = rng.sample(pair, 2)
            best = max(pair, key=lambda fact: int(fact.value.split()[0]))
            question = form.format(x=one.subject, y=other.subject)
            records.append(record(question, best, [one.page, other.page], "public"))
    return records


def chains(rng: random.Random) -> list[dict]:
    """Return questions on a drone's workshop or supplier, which the drone's staff page names."""
    facts = {(fact.subject, fact.attribute): fact for fact in editions()[0]}
    records = []
    for link, forms in table("staff")["chain"].items():
        for known in (fact for fact in staff_facts() if fact.attribute == link):
            for attribute in rng.sample(sorted(forms), 2):
                asked = facts[known.value, attribute]
                question = forms[attribute].format(x=known.subject)
                records.append(record(question, asked, [known.page, asked.page], "staff"))
    return records


def record(question: str, asked: Fact | StaffFact, names: list[str], access: str) -> dict:
    """Return the record of a question whose answer is the fact that is asked."""
    return {
        "id": "",
        "question": question,
        "paraphrases": [],
        "value": asked.value,
        "answer": asked.entry["answers"][0].format(x=asked.subject, v=asked.value),
        "pages": names,
        "access": access,
        "edition": 1,
        "replaces": None,
    }
