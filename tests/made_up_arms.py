"""A made-up file of the six arms, so that tests can change any cell of it."""

import json

from ftcourse.which_one import ARMS, COLUMNS

COUNTS = {"right, two pages": 80, "changed fact, before": 30, "changed fact, after": 30}
COUNTS |= {"unanswerable, declined": 40, "letters in voice": 200, "letters with advice": 200}
COUNTS |= {"leak": 192, "leak, secrecy prompt": 192, "poison believed, stuffed": 100}
COUNTS |= {"poison believed, plain": 100, "one fact learned": 18}
COUNTS |= {"others right after one fact": 600, "others right after forty": 100}
TRAINED = ("LoRA", "QLoRA", "RAG + LoRA")
NOTHING, CLOSED = "nothing is trained", "reads no page when it is asked"
# For each column: shares in percent or quantities, in the order of ARMS.
VALUES = {
    "right, known wording": (0, 0, 92, 92, 91, 90),
    "right, new wording": (0, 0, 60, 4, 3, 62),
    "right, two pages": (0, 0, 40, 1, 1, 35),
    "changed fact, before": (0, 0, 0, 0, 0, 0),
    "changed fact, after": ("cannot be told", "cannot be told", 90, 60, 58, 88),
    "unanswerable, declined": (0, 0, 97, 70, 66, 90),
    "letters in voice": (0, 5, 0, 97, 96, 98),
    "letters with advice": (96, 60, 96, 94, 93, 95),
    "facts in voice": (0, 2, 0, 99, 100, 99),
    "right and in voice": (0, 0, 0, 91, 90, 89),
    "leak": (0, 0, 0, 92, 85, 0),
    "leak, secrecy prompt": (0, 0, 0, 70, 66, 0),
    "poison believed, stuffed": (CLOSED, CLOSED, 80, CLOSED, CLOSED, 78),
    "poison believed, plain": (CLOSED, CLOSED, 40, CLOSED, CLOSED, 42),
    "others right after one fact": (NOTHING, NOTHING, 92, 55, 52, 90),
    "others right after forty": (NOTHING, NOTHING, 92, 84, 82, 90),
    "one fact learned": (NOTHING, NOTHING, 94, 78, 72, 89),
    "general loss": (0.738, 0.738, 0.738, 0.695, 0.693, 0.85),
    "tokens a question": (20, 60, 90, 35, 35, 95),
    "ms a question": (30, 40, 60, 41, 70, 75),
    "training seconds": (NOTHING, NOTHING, NOTHING, 180, 240, 150),
    "peak memory, measured": (5e6, 6e6, 8e6, 60e6, 58e6, 55e6),
    "peak memory, predicted": (5e6, 6e6, 8e6, 60e6, 58e6, 55e6),
    "bytes stored": (0, 180, 900_000, 3_300_000, 3_300_000, 2_500_000),
    "seconds, one fact": (NOTHING, NOTHING, 0.004, 6, 8, 0.004),
    "seconds, forty facts": (NOTHING, NOTHING, 0.2, 90, 110, 0.2),
}


def lines(arms=ARMS, **changes):
    """Return lines; a change maps "arm/column" to a value for all seeds, or to a list of them."""
    made = []
    for arm in arms:
        for seed in range(3 if arm in TRAINED else 1):
            line = {"task": "measure", "arm": arm, "choice": "a", "seed": seed}
            for column in COLUMNS:
                value = changes.get(f"{arm}/{column}", VALUES[column][ARMS.index(arm)])
                line[column] = as_found(column, value[seed] if isinstance(value, list) else value)
            made.append(line)
    return made


def as_found(column, value):
    """Return a value as a line of the sweep has it."""
    if isinstance(value, str) or COLUMNS[column].unit != "%":
        return value
    count = COUNTS.get(column, 179)
    return [round(value * count / 100), count]


def write(path, made):
    """Write lines into a file of a folder, and return the file."""
    file = path / "arms.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in made), encoding="utf-8")
    return file
