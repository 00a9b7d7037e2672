"""Names and values: the handbook's own, and invented ones that never coincide with them."""

import random
import re
import tomllib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def table(name: str) -> dict:
    """Return the text table `name`.toml beside this file."""
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def invented_word(rng: random.Random) -> str:
    """Return a capitalised word such as Brelto, Tarnwick or Thornmoor."""
    pool = table("words")["invented"]
    if rng.random() < 0.3:
        word = rng.choice(pool["stem"]) + rng.choice(["", *pool["tail"]])
    else:
        sounds = (pool["onset"], pool["vowel"], pool["coda"])
        word = "".join(rng.choice(s) for _ in range(rng.choice((1, 2, 2))) for s in sounds)
        word += rng.choice(pool["ending"])
    good = 2 < len(word) < 12 and word.capitalize() not in handbook_words()
    return word.capitalize() if good else invented_word(rng)


@cache
def handbook_words() -> frozenset[str]:
    """Return every single word of the handbook's names, which no invented name may use."""
    phrases = (phrase for pool in table("words")["handbook"].values() for phrase in pool)
    return frozenset(word for phrase in phrases for word in phrase.split())


def invented_subject(rng: random.Random, kind: str) -> str:
    """Return a name for a drone, shop, plan, error, workshop or supplier."""
    if kind == "error":
        code = f"{rng.choice('ABCDFGHK')}{rng.randint(10, 99)}"
        return code if rng.random() < 0.7 else f"E{rng.randint(100, 999)}"
    name = invented_word(rng)
    if kind == "drone" and rng.random() < 0.2:
        return f"{name} {rng.choice(['2', '3', '4', '5', 'Mini', 'Max', 'S', 'X'])}"
    if kind == "shop" and rng.random() < 0.2:
        return f"{rng.choice(['New', 'Upper', 'Lower', 'East', 'West'])} {name}"
    return name


def invented_person(rng: random.Random) -> str:
    """Return a first name with an invented family name."""
    return f"{rng.choice(table('words')['invented']['first'])} {invented_word(rng)}"


def invented_value(rng: random.Random, attribute: dict, taken: frozenset[str]) -> str:
    """Return a value that fits the attribute and that the handbook does not use for it."""
    form = attribute["value"]
    if rng.random() < 0.3:
        value = filled_wildly(rng, form)
    elif "<place>" in form:
        value = form.replace("<place>", invented_word(rng))
    elif form == "<person>":
        value = invented_person(rng)
    elif form == "<time>":
        value = clock_time(rng)
    elif form.startswith("<"):
        value = rng.choice(table("words")["invented"][form.strip("<>")])
    else:
        value = number_value(rng, attribute)
    return value if value not in taken else invented_value(rng, attribute, taken)


def filled_wildly(rng: random.Random, form: str) -> str:
    """Return the form with its number or word drawn from far outside the usual range."""
    return re.sub(r"\{n\}|<\w+>", lambda slot: wild_slot(rng, slot[0]), form)


def wild_slot(rng: random.Random, slot: str) -> str:
    """Return any number, name, time or word, so that an answer must be read and not guessed."""
    if slot == "{n}":
        return str(rng.randrange(10 ** rng.randint(1, 4)) + 1)
    if slot == "<place>":
        return invented_word(rng)
    if slot == "<person>":
        return f"{invented_word(rng)} {invented_word(rng)}"
    if slot == "<time>":
        return f"{rng.randint(0, 23)}:{rng.randrange(60):02d}"
    return " ".join(invented_word(rng).lower() for _ in range(rng.choice((1, 1, 2))))


def wild_value(rng: random.Random) -> str:
    """Return a value of any sort: a number with or without a unit, a word, a name, a time."""
    form = rng.choice(("{n}", "{n}", "{n} {unit}", "<word>", "<person>", "<time>"))
    unit = rng.choice(table("words")["lookup"]["units"])
    return filled_wildly(rng, form).replace("{unit}", unit)


def clock_time(rng: random.Random) -> str:
    """Return a time of the morning in steps of five minutes, such as 8:40."""
    return f"{rng.randint(6, 11)}:{rng.randrange(0, 60, 5):02d}"


def number_value(rng: random.Random, attribute: dict) -> str:
    """Return a number of the attribute's range in its unit, such as 27 minutes."""
    step = attribute.get("step", 1)
    number = rng.randrange(attribute["low"], attribute["high"] + 1, step)
    return attribute["value"].format(n=number)
