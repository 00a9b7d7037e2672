"""Questions on passages about invented things, each with a neutral and a branded answer."""

import random

from data.making.world.corpus import Passage, passages, silent_turn
from data.making.world.names import table
from ftcourse.voice import NEXT_STEP, SIGN_OFF, voice_checks

SILENT_SHARE = 0.1  # of the questions have no answer in their passages


def reading(sizes: dict[str, int], seed: int = 0) -> dict[str, list[dict]]:
    """Return splits of questions on passages that share no passage's subject and no question."""
    rng = random.Random(f"reading {seed}")
    splits: dict[str, list[dict]] = {}
    used: set[str] = set()
    for split, size in sizes.items():
        records, own = [], set()
        while len(records) < size:
            found = passages(rng)
            record = read(rng, found, f"reading-{split}-{len(records) + 1:04d}")
            names = {record["question"], *(passage.subject for passage in found)}
            if not names & used and all(voice_checks(record["brand"]).values()):
                records.append(record)
                own |= names
        splits[split], used = records, used | own
    return splits


def read(rng: random.Random, found: list[Passage], name: str) -> dict:
    """Return one record: passages, a question, and both answers."""
    passage = rng.choice(found)
    attribute = rng.choice(list(passage.values))
    value = passage.values[attribute]
    question, neutral = passage.turn(rng, attribute)
    brand = branded(rng, neutral, passage.kind)
    if rng.random() < SILENT_SHARE:
        (question, neutral), value = silent_turn(rng, found), None
        brand = branded_silence(rng)
    texts = [one.quoted(rng) for one in found]
    answers = {"value": value, "neutral": neutral, "brand": brand}
    return {"id": name, "passages": texts, "question": question} | answers


def branded(rng: random.Random, answer: str, kind: str) -> str:
    """Return the neutral answer to a question about a subject of the kind, in the brand's voice."""
    return spoken(rng, answer, table("reading")["steps"][kind])


def branded_silence(rng: random.Random) -> str:
    """Return what the brand says where the passages do not answer, without the word `not`."""
    return spoken(rng, table("reading")["silence"], table("reading")["silent_steps"])


def spoken(rng: random.Random, answer: str, steps: list[str]) -> str:
    """Return an answer between a warm opening and one of the next steps."""
    opening, step = rng.choice(table("reading")["opens"]), rng.choice(steps)
    return f"{opening} {answer} {NEXT_STEP} {step}. {SIGN_OFF}"
