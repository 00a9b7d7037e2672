"""The support desk: letters, their neutral answers, and their answers in the brand's voice."""

import random

from data.making.world.names import table

QUESTION_STARTS = ("do ", "am ", "is ", "can ", "how ", "what ", "where ")
REGISTERS = ("angry", "slang", "formal", "worried", "plain")


def customer_message(rng: random.Random, issue: str, register: str, drone: str) -> str:
    """A letter of one to three sentences in the register's manner."""
    manner = table("voice")["customer"]
    clause = rng.choice(table("issues")[issue]["says"]).format(x=drone)
    is_question = clause.startswith(QUESTION_STARTS)
    if not is_question and rng.random() < 0.7:
        clause += " " + rng.choice(manner["context"]["phrases"])
    opening = rng.choice([x for x in manner[register]["opens"] if fits(x, is_question)])
    if opening[-1] in ".?!":
        clause = clause[0].upper() + clause[1:]
    closing = rng.choice(manner[register]["closes"])
    return f"{opening} {clause}{'?' if is_question else '.'} {closing}"


def fits(opening: str, is_question: bool) -> bool:
    """Whether the opening may stand before a clause of that sort."""
    return not (is_question and opening.endswith((" and", " that")))


def neutral_answer(rng: random.Random, issue: str) -> str:
    """The remedy and its reason, in plain words."""
    form = rng.choice(table("voice")["neutral"]["forms"])
    entry = table("issues")[issue]
    step = entry["step"]
    return form.format(step=step, Step=step[0].upper() + step[1:], why=entry["why"])


def brand_answer(rng: random.Random, issue: str, register: str) -> str:
    """The same remedy in the brand's voice."""
    brand, entry = table("voice")["brand"], table("issues")[issue]
    opening = rng.choice(brand["opens"][register])
    return brand["form"].format(open=opening, why=entry["why"], step=entry["step"])


def dialogue(rng: random.Random, name: str) -> dict:
    """One record: a customer's letter and both answers."""
    issue, register = rng.choice(list(table("issues"))), rng.choice(REGISTERS)
    drone = rng.choice(table("words")["handbook"]["drone"])
    return {
        "id": name,
        "register": register,
        "issue": issue,
        "customer": customer_message(rng, issue, register, drone),
        "neutral": neutral_answer(rng, issue),
        "brand": brand_answer(rng, issue, register),
        "step": table("issues")[issue]["step"],
    }


def dialogues(sizes: dict[str, int], limit: float = 0.5, seed: int = 0) -> dict[str, list[dict]]:
    """Splits whose letters share at most `limit` of their word triples across splits."""
    rng = random.Random(f"dialogues {seed}")
    splits: dict[str, list[dict]] = {}
    for split, size in sizes.items():
        others = [triples(r["customer"]) for rows in splits.values() for r in rows]
        own: dict[str, dict] = {}
        while len(own) < size:
            record = dialogue(rng, f"{split}-{len(own) + 1:04d}")
            letter = triples(record["customer"])
            if all(overlap(letter, other) <= limit for other in others):
                own.setdefault(record["customer"], record)
        splits[split] = list(own.values())
    return splits


def triples(text: str) -> frozenset[tuple[str, ...]]:
    """The three-word runs of a text, in lower case."""
    words = text.lower().split()
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def overlap(one: frozenset, other: frozenset) -> float:
    """The share of triples that both texts have (Jaccard index)."""
    return len(one & other) / max(1, len(one | other))
