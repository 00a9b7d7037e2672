"""The support desk: letters, their neutral answers, and their answers in the brand's voice."""

import random

from data.making.world.names import table
from ftcourse.voice import NEXT_STEP, SIGN_OFF

QUESTION_STARTS = ("do ", "am ", "is ", "can ", "how ", "what ", "where ")
REGISTERS = ("angry", "slang", "formal", "worried", "plain")


def customer_message(rng: random.Random, issue: str, register: str, drone: str) -> str:
    """Return a letter of one to three sentences in the register's manner."""
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
    """Return whether the opening may stand before a clause of that kind."""
    return not (is_question and opening.endswith((" and", " that")))


def neutral_answer(rng: random.Random, issue: str) -> str:
    """Return the remedy and its reason, in plain words."""
    form = rng.choice(table("voice")["neutral"]["forms"])
    entry = table("issues")[issue]
    step = entry["step"]
    return form.format(step=step, Step=step[0].upper() + step[1:], why=entry["why"])


def brand_answer(rng: random.Random, issue: str, register: str) -> str:
    """Return the same remedy in the brand's voice."""
    entry = table("issues")[issue]
    opening = rng.choice(table("voice")["brand"][register])
    return f"{opening} {entry['why']} {NEXT_STEP} {entry['step']}. {SIGN_OFF}"


def dialogue(rng: random.Random, name: str) -> dict:
    """Return one record: a customer's letter and both answers."""
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
    """Return splits whose letters share at most `limit` of their word triples across splits."""
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
    """Return the three-word runs of a text, in lower case."""
    words = text.lower().split()
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def overlap(one: frozenset, other: frozenset) -> float:
    """Return the share of triples that both texts have (Jaccard index)."""
    return len(one & other) / max(1, len(one | other))
