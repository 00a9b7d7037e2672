"""The text that the embedded model learns from: invented names and values, the neutral voice."""

import random
from functools import cache

from data.making.world.desk import REGISTERS, customer_message, neutral_answer
from data.making.world.handbook import TITLES, taken_values
from data.making.world.names import (
    invented_subject,
    invented_value,
    invented_word,
    table,
    wild_value,
)
from data.making.world.prose import prose

SILENT = "The passages do not say."
UNREAD = "I do not know that without the handbook."
Chat = list[dict[str, str]]


def document(rng: random.Random) -> str | Chat:
    """Return one training document: a text, or a chat as a list of messages."""
    kinds = (prose, invented_page, support, reading, lookup, closed_book, small_talk, steered)
    weights = (12, 2, 18, 46, 14, 3, 1, 4)
    return rng.choices(kinds, weights)[0](rng)


def turn(user: str, assistant: str) -> Chat:
    """Return one question and its answer as chat messages."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def support(rng: random.Random) -> Chat:
    """Return a customer's letter about an invented drone and the neutral answer."""
    issue = rng.choice(list(table("issues")))
    letter = customer_message(rng, issue, rng.choice(REGISTERS), invented_subject(rng, "drone"))
    return turn(letter, neutral_answer(rng, issue))


def small_talk(rng: random.Random) -> Chat:
    """Return a greeting, a thank-you, or a question about the model itself."""
    return turn(*rng.choice(table("prose")["small_talk"]["pairs"]))


def steered(rng: random.Random) -> Chat:
    """Return a support chat whose system message prescribes the answer's first or last words."""
    begin, end = (invented_phrase(rng) for _ in range(2))
    parts = rng.choice((("begin",), ("end",), ("begin", "end")))
    orders = {
        "begin": f'Begin every answer with: "{begin}"',
        "end": f'End every answer with: "{end}"',
    }
    letter, answer = support(rng)
    spoken = [begin] * ("begin" in parts) + [answer["content"]] + [end] * ("end" in parts)
    system = {"role": "system", "content": " ".join(orders[part] for part in parts)}
    return [system, letter, {"role": "assistant", "content": " ".join(spoken)}]


def invented_phrase(rng: random.Random) -> str:
    """Return a short odd sentence, so that a system message must be read and cannot be guessed."""
    words = prose(rng).replace('"', "").replace(".", "").replace(",", "").split()
    size = rng.randint(2, 6)
    start = rng.randrange(max(1, len(words) - size))
    phrase = " ".join([*words[start : start + size], invented_word(rng)])
    return phrase[0].upper() + phrase[1:] + rng.choice(".!.")


def closed_book(rng: random.Random) -> Chat:
    """Return questions about facts without a passage: the model says that it does not know."""
    chat = []
    for _ in range(rng.randint(1, 3)):
        kind = any_kind(rng)
        chat += turn(ask(rng, kind, invented_subject(rng, kind), any_attribute(rng, kind)), UNREAD)
    return chat


def any_kind(rng: random.Random) -> str:
    """Return a kind of subject, drones most often."""
    return "drone" if rng.random() < 0.45 else rng.choice(list(TITLES))


def any_attribute(rng: random.Random, kind: str) -> str:
    """Return the name of an attribute that the kind has."""
    return rng.choice(list(table("facts")[kind]))


def ask(rng: random.Random, kind: str, subject: str, attribute: str) -> str:
    """Return a question for the attribute of the subject."""
    return rng.choice(table("facts")[kind][attribute]["asks"]).format(x=subject)


@cache
def taken(kind: str, attribute: str) -> frozenset[str]:
    """Return the values that the handbook uses for the attribute, kept out of all training text."""
    return taken_values().get((kind, attribute), frozenset())


class Passage:
    """A paragraph about an invented subject that remembers which values it states."""

    def __init__(self, rng: random.Random, kind: str, subject: str, attributes: list[str]):
        """Draw a value and a sentence for each attribute."""
        rows = table("facts")[kind]
        self.kind, self.subject = kind, subject
        self.values = {a: invented_value(rng, rows[a], taken(kind, a)) for a in attributes}
        sentences = [
            rng.choice(rows[a]["states"]).format(x=subject, v=v) for a, v in self.values.items()
        ]
        if rng.random() < 0.5:
            colour = rng.choice(table("words")["invented"]["colouring"][kind]).format(x=subject)
            sentences.insert(rng.randrange(len(sentences) + 1), colour)
        group = rows[attributes[0]]["page"]
        self.title = TITLES[kind].format(x=subject, page=group)
        self.text = " ".join(sentences)

    def quoted(self, rng: random.Random) -> str:
        """Return the text as a prompt quotes it: with or without its heading."""
        return f"{self.title}. {self.text}" if rng.random() < 0.5 else self.text

    def turn(self, rng: random.Random, attribute: str) -> tuple[str, str]:
        """Return a question for one of the stated values and its answer."""
        answer = rng.choice(table("facts")[self.kind][attribute]["answers"])
        question = ask(rng, self.kind, self.subject, attribute)
        return question, answer.format(x=self.subject, v=self.values[attribute])


def new_passage(rng: random.Random, kind: str, subject: str, group: str | None = None) -> Passage:
    """Return a passage of one to four facts from one page, by default any page of the subject."""
    rows = table("facts")[kind]
    group = rng.choice(page_groups(kind)) if group is None else group
    attributes = [name for name, row in rows.items() if row["page"] == group]
    size = min(len(attributes), rng.choice((1, 2, 2, 3, 3, 4, 4, 4)))
    chosen = rng.sample(attributes, size)
    if rng.random() < 0.5:
        chosen.sort(key=attributes.index)  # the order of the handbook's pages
    return Passage(rng, kind, subject, chosen)


def page_groups(kind: str) -> list[str]:
    """Return the pages that a subject of the kind has: four for a drone, one for the rest."""
    return sorted({row["page"] for row in table("facts")[kind].values()})


def invented_page(rng: random.Random) -> str:
    """Return a page about an invented subject, as plain text."""
    kind = any_kind(rng)
    passage = new_passage(rng, kind, invented_subject(rng, kind))
    return f"# {passage.title}\n\n{passage.text}"


def passages(rng: random.Random) -> list[Passage]:
    """Return one to four passages, as a search would: pages of one subject and of its rivals."""
    size = rng.choice((1, 2, 3, 3, 4))
    kind = any_kind(rng)
    subject = invented_subject(rng, kind)
    groups = rng.sample(page_groups(kind), min(size, len(page_groups(kind))))
    found = [new_passage(rng, kind, subject, groups[0])]
    for group in groups[1:]:
        if rng.random() < 0.4:
            found.append(new_passage(rng, kind, subject, group))
    while len(found) < size:
        found.append(rival(rng, kind, {p.subject for p in found}, groups[0]))
    rng.shuffle(found)
    return found


def rival(rng: random.Random, kind: str, subjects: set[str], group: str) -> Passage:
    """Return a passage about another subject, most often on the same topic."""
    draw = rng.random()
    other_kind = kind if draw < 0.8 else any_kind(rng)
    other = invented_subject(rng, other_kind)
    if other in subjects:
        return rival(rng, kind, subjects, group)
    return new_passage(rng, other_kind, other, group if draw < 0.6 else None)


def reading(rng: random.Random) -> Chat:
    """Return passages and up to five questions about them; the passages do not answer all."""
    found = passages(rng)
    stated = [(passage, attribute) for passage in found for attribute in passage.values]
    chosen = rng.sample(stated, min(len(stated), rng.randint(2, 5)))
    turns = [
        silent_turn(rng, found) if rng.random() < 0.25 else passage.turn(rng, attribute)
        for passage, attribute in chosen
    ]
    return chat_about([passage.quoted(rng) for passage in found], turns)


def chat_about(texts: list[str], turns: list[tuple[str, str]]) -> Chat:
    """Return numbered passages, then questions and answers, turn by turn."""
    lines = "".join(f"[{i}] {text}\n" for i, text in enumerate(texts, 1))
    (first, answer), *others = turns
    chat = turn(f"Passages:\n{lines}\nQuestion: {first}", answer)
    for question, answer in others:
        chat += turn(f"Question: {question}", answer)
    return chat


def lookup(rng: random.Random) -> Chat:
    """Return notes about unknown things, and questions about them: reading in its simplest form.

    Every name, noun and value is drawn for this document, so the only way to answer is to read.
    """
    words = table("words")["lookup"]
    form, ask = rng.choice(words["states"]), rng.choice(words["asks"])
    names = [invented_word(rng) for _ in range(rng.randint(1, 4))]
    nouns = rng.sample(words["nouns"], rng.randint(1, 4))
    pairs = rng.sample([(x, a) for x in names for a in nouns], min(8, len(names) * len(nouns)))
    stated = {pair: wild_value(rng) for pair in pairs[: max(1, len(pairs) * 3 // 4)]}
    sentences = [form.format(x=x, a=a, v=v) for (x, a), v in stated.items()]
    cut = rng.randint(0, len(sentences) - 1)
    texts = [" ".join(part) for part in (sentences[:cut], sentences[cut:]) if part]
    turns = []
    for x, a in rng.sample(pairs, min(len(pairs), 5)):
        answer = words["answer"].format(x=x, a=a, v=stated[x, a]) if (x, a) in stated else SILENT
        turns.append((ask.format(x=x, a=a), answer))
    return chat_about(texts, turns)


def silent_turn(rng: random.Random, found: list[Passage]) -> tuple[str, str]:
    """Return a question that no passage answers, though its subject or its topic may be there."""
    passage = rng.choice(found)
    kind, subject = passage.kind, passage.subject
    draw = rng.random()
    if draw < 0.15 and kind == "drone":
        asks = table("words")["invented"]["unanswered"]["asks"]
        return rng.choice(asks).format(x=subject), SILENT
    if draw < 0.6:
        stated = {a for p in found if p.subject == subject for a in p.values}
        missing = sorted(set(table("facts")[kind]) - stated)
        if missing:
            return ask(rng, kind, subject, rng.choice(missing)), SILENT
    stranger = invented_subject(rng, kind)
    return ask(rng, kind, stranger, rng.choice(list(passage.values))), SILENT
