"""The staff's own pages about the ten drones, and questions on them."""

import random
from dataclasses import dataclass
from functools import cache

from data.making.world.handbook import editions, pages
from data.making.world.names import table
from data.making.world.similar import similar_pages


@dataclass(frozen=True)
class StaffFact:
    """One value that only the staff may read."""

    attribute: str
    subject: str
    value: str
    wording: int

    @property
    def entry(self) -> dict:
        """The attribute's row in staff.toml."""
        return table("staff")["facts"][self.attribute]

    @property
    def page(self) -> str:
        """The id of the page that holds the fact, such as dipper-service."""
        return f"{self.subject.lower()}-{self.entry['page']}"

    @property
    def sentence(self) -> str:
        """The fact in the words of its page."""
        return self.entry["states"][self.wording].format(x=self.subject, v=self.value)


@cache
def staff_facts(seed: int = 0) -> tuple[StaffFact, ...]:
    """Return eight facts about each drone, with values that no public page states."""
    rng = random.Random(f"staff {seed}")
    drones = table("words")["handbook"]["drone"]
    values = {
        name: secret_values(rng, row, len(drones)) for name, row in table("staff")["facts"].items()
    }
    return tuple(
        StaffFact(name, drone, values[name][i], rng.randrange(len(row["states"])))
        for i, drone in enumerate(drones)
        for name, row in table("staff")["facts"].items()
    )


def secret_values(rng: random.Random, entry: dict, n: int) -> list[str]:
    """Return n values of an attribute; a number is one that no public page states."""
    if "{n}" in entry["value"]:
        numbers = range(entry["low"], entry["high"] + 1)
        values = [entry["value"].format(n=number) for number in numbers]
        return rng.sample([value for value in values if value not in public_text()], n)
    pool = (table("words")["handbook"] | table("staff")["words"])[entry["value"].strip("<>")]
    return [value for _ in range(n) for value in rng.sample(pool, len(pool))][:n]


@cache
def public_text() -> str:
    """Return all public pages in one string."""
    both = [text for n, facts in enumerate(editions(), 1) for text in pages(facts, n).values()]
    public = [text for text in both if "access: public" in text]
    return "\n".join([*public, *similar_pages().values()])


def staff_pages() -> dict[str, str]:
    """Return two pages for each drone: purchasing and service."""
    by_page: dict[str, list[StaffFact]] = {}
    for fact in staff_facts():
        by_page.setdefault(fact.page, []).append(fact)
    return {name: staff_page(name, own) for name, own in by_page.items()}


def staff_page(name: str, facts: list[StaffFact]) -> str:
    """Return one page: front matter, heading and notes."""
    front = f"---\nid: {name}\naccess: staff\nedition: 1\n---\n"
    title = f"# {facts[0].subject}: {facts[0].entry['page']}"
    return f"{front}\n{title}\n\n{' '.join(fact.sentence for fact in facts)}\n"


def staff_questions() -> list[dict]:
    """Return one question for each note of the staff's pages, but the links of the chains."""
    rng = random.Random("staff questions 0")
    records = []
    for number, fact in enumerate((fact for fact in staff_facts() if fact.entry["asks"]), 1):
        asks = [ask.format(x=fact.subject) for ask in rng.sample(fact.entry["asks"], 3)]
        answer = fact.entry["answers"][0].format(x=fact.subject, v=fact.value)
        records.append(
            {
                "id": f"s{number:03d}",
                "question": asks[0],
                "paraphrases": asks[1:],
                "value": fact.value,
                "answer": answer,
                "page": fact.page,
                "access": "staff",
                "edition": 1,
                "replaces": None,
            }
        )
    return records
