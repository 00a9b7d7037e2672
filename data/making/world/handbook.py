"""The handbook: facts in two editions, the pages that state them, the questions they answer."""

import random
from dataclasses import dataclass, replace
from itertools import count

from data.making.world.names import clock_time, number_value, table

STAFF_ONLY = frozenset({"workshop", "supplier"})
CHANGED_FACTS = 40
TITLES = {
    "drone": "{x}: {page}",
    "shop": "The {x} shop",
    "plan": "The {x} plan",
    "error": "Error {x}",
    "workshop": "The {x} workshop",
    "supplier": "Our supplier {x}",
}


@dataclass(frozen=True)
class Fact:
    """One value of one attribute of one subject, as one edition of the handbook states it."""

    kind: str
    attribute: str
    subject: str
    value: str
    wording: int  # which of the attribute's sentences states it
    edition: int = 1

    @property
    def entry(self) -> dict:
        """The attribute's row in facts.toml."""
        return table("facts")[self.kind][self.attribute]

    @property
    def page(self) -> str:
        """The id of the page that holds the fact, such as dipper-flight."""
        slug = self.subject.lower().replace(" ", "-")
        return f"{slug}-{self.entry['page'] or self.kind}"

    @property
    def access(self) -> str:
        """Who may read the page: public or staff."""
        return "staff" if self.kind in STAFF_ONLY else "public"

    @property
    def title(self) -> str:
        """The heading of the page that holds the fact."""
        return TITLES[self.kind].format(x=self.subject, page=self.entry["page"])

    @property
    def sentence(self) -> str:
        """The fact in the words of its page."""
        return self.entry["states"][self.wording].format(x=self.subject, v=self.value)


def first_edition(rng: random.Random) -> list[Fact]:
    """Return every fact of the first edition, page by page."""
    facts = []
    for kind, attributes in table("facts").items():
        subjects = table("words")["handbook"][kind]
        values = {name: own_values(rng, entry, len(subjects)) for name, entry in attributes.items()}
        for i, subject in enumerate(subjects):
            facts += [
                Fact(kind, name, subject, values[name][i], rng.randrange(2)) for name in attributes
            ]
    return facts


def own_values(rng: random.Random, entry: dict, n: int) -> list[str]:
    """Return the handbook's n values of one attribute, all different as far as its pool allows."""
    form = entry["value"]
    if "{n}" in form or form == "<time>":
        draw = clock_time if form == "<time>" else lambda rng: number_value(rng, entry)
        values: dict[str, None] = {}
        while len(values) < n:
            values[draw(rng)] = None
        return list(values)
    pool_name = form[form.index("<") + 1 : form.index(">")]
    pool = list(table("words")["handbook"][pool_name])
    rng.shuffle(pool)
    return [form.replace(f"<{pool_name}>", pool[i % len(pool)]) for i in range(n)]


def second_edition(rng: random.Random, first: list[Fact]) -> list[Fact]:
    """Return the facts of the second edition: the first with CHANGED_FACTS new numbers."""
    numeric = [i for i, fact in enumerate(first) if "{n}" in fact.entry["value"]]
    changed = set(rng.sample(numeric, CHANGED_FACTS))
    return [
        replace(fact, value=another_number(rng, fact), edition=2) if i in changed else fact
        for i, fact in enumerate(first)
    ]


def another_number(rng: random.Random, fact: Fact) -> str:
    """Return a number for the fact that differs from the one it has."""
    value = number_value(rng, fact.entry)
    return value if value != fact.value else another_number(rng, fact)


def taken_values() -> dict[tuple[str, str], frozenset[str]]:
    """Return the values that the editions use, for each (kind, attribute)."""
    first, second = editions()
    taken: dict[tuple[str, str], set[str]] = {}
    for fact in first + second:
        taken.setdefault((fact.kind, fact.attribute), set()).add(fact.value)
    return {key: frozenset(values) for key, values in taken.items()}


def editions(seed: int = 0) -> tuple[list[Fact], list[Fact]]:
    """Return the facts of both editions."""
    rng = random.Random(f"handbook {seed}")
    first = first_edition(rng)
    return first, second_edition(rng, first)


def pages(facts: list[Fact], edition: int) -> dict[str, str]:
    """Return each page's id and its Markdown with front matter."""
    by_page: dict[str, list[Fact]] = {}
    for fact in facts:
        by_page.setdefault(fact.page, []).append(fact)
    return {name: page_text(name, own, edition) for name, own in by_page.items()}


def page_text(name: str, facts: list[Fact], edition: int) -> str:
    """Return one page: front matter, heading, and two paragraphs; the first begins with colour."""
    rng = random.Random(name)
    colour = rng.choice(table("words")["handbook"]["colouring"][facts[0].kind])
    sentences = [colour.format(x=facts[0].subject), *(fact.sentence for fact in facts)]
    half = len(sentences) // 2 + 1
    front = f"---\nid: {name}\naccess: {facts[0].access}\nedition: {edition}\n---\n"
    body = f"# {facts[0].title}\n\n{' '.join(sentences[:half])}\n\n{' '.join(sentences[half:])}\n"
    return f"{front}\n{body}"


def questions(seed: int = 0) -> list[dict]:
    """Return all questions: first edition, what changed in the second, and what no page answers."""
    rng = random.Random(f"questions {seed}")
    first, second = editions(seed)
    number = count(1)
    records, ids = [], {}
    for fact in first + [fact for fact in second if fact.edition == 2]:
        key = (fact.subject, fact.attribute)
        records.append(question(rng, fact, f"q{next(number):03d}", ids.get(key)))
        ids[key] = records[-1]["id"]
    return records + [unanswered(text, f"q{next(number):03d}") for text in open_questions(rng)]


def question(rng: random.Random, fact: Fact, name: str, replaces: str | None) -> dict:
    """Return the record that asks for one fact."""
    asks = [ask.format(x=fact.subject) for ask in rng.sample(fact.entry["asks"], 3)]
    return {
        "id": name,
        "question": asks[0],
        "paraphrases": asks[1:],
        "value": fact.value,
        "answer": fact.entry["answers"][0].format(x=fact.subject, v=fact.value),
        "page": fact.page,
        "access": fact.access,
        "edition": fact.edition,
        "replaces": replaces,
    }


def unanswered(text: str, name: str) -> dict:
    """Return the record of a question that no page answers."""
    empty = dict.fromkeys(("value", "page"))
    return {"id": name, "question": text, "paraphrases": [], **empty} | {
        "answer": "The passages do not say.",
        "access": "public",
        "edition": 1,
        "replaces": None,
    }


def open_questions(rng: random.Random) -> list[str]:
    """Return 40 questions about drones that do not exist and about things that no page states."""
    words = table("words")["handbook"]
    drone_asks = [ask for row in table("facts")["drone"].values() for ask in row["asks"]]
    strange = [
        ask.format(x=bird)
        for bird in words["unanswered"]["drone"]
        for ask in rng.sample(drone_asks, 2)
    ]
    unstated = [
        ask.format(x=bird)
        for ask in words["unanswered"]["asks"]
        for bird in rng.sample(words["drone"], 2)
    ]
    return strange + unstated
