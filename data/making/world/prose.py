"""Plain prose from the scenes of prose.toml."""

import random
import re

from data.making.world.names import invented_subject, invented_word, table

SLOT = re.compile(r"<(\w+)(:cap)?>")


def prose(rng: random.Random) -> str:
    """Return a short text of one scene: some sentences about the same people and drone."""
    bound = bindings(rng)
    beats = rng.choice(list(table("prose")["scenes"].values()))
    return " ".join(sentence(rng, rng.choice(beat), bound) for beat in beats if rng.random() < 0.9)


def bindings(rng: random.Random) -> dict[str, str]:
    """Return the people, the drone and the town of one text."""
    who, other = rng.sample(table("words")["invented"]["first"], 2)
    return {
        "who": who,
        "other": other,
        "drone": invented_subject(rng, "drone"),
        "town": invented_word(rng),
    }


def sentence(rng: random.Random, template: str, bound: dict[str, str]) -> str:
    """Return the template with a fresh draw for each slot and the names of the text."""

    def draw(match: re.Match) -> str:
        name, capital = match.groups()
        if name == "n":
            return str(rng.randint(2, 95))
        phrase = SLOT.sub(draw, rng.choice(table("prose")["slots"][name]))
        return phrase[0].upper() + phrase[1:] if capital else phrase

    return SLOT.sub(draw, template).format(**bound)
