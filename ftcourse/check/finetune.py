"""The exercises of lesson 06: tokens that teach, a file to repair, leaks, a mixture, a cure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_function, judge_number
from ftcourse.records import Record

Rows = Sequence[Mapping[str, Any]]


@exercise(
    hints=(
        "Storage and products are two switches. Which one did the bare option leave alone?",
        "The trace of the bare layer showed what enters and what multiplies.",
        "bfloat16 came in, and float32 multiplied.",
    ),
    solution="mine = 32",
)
def bits_of_products(mine: Any) -> Verdict:
    """Judge the bits of a number in the products of a bare load_in_4bit model."""
    bugs = {
        4: "The codes have 4 bits. Did any product happen between codes?",
        16: "That is what enters. Does bitsandbytes multiply in the format that enters, by itself?",
        8: "Which setting would give 8? The option was load_in_4bit.",
        2: "Is that in bytes?",
    }
    praise = "Float32, unless you ask for another format: half of a card's speed is given away."
    return judge_number(mine, 32, bugs, praise, "In which format did the trace see products?")


@exercise(
    hints=(
        "An adapter fits exactly the weights that it was trained beside.",
        "Two of the three are other weights than those: one before rounding, one rounded again.",
        "Restored in 16 bits: number 1.",
    ),
    solution="mine = 1",
)
def merge_into(mine: Any) -> Verdict:
    """Judge the number of the weights into which a QLoRA adapter is merged without loss."""
    bugs = {
        2: "They are more exact. But are they what the adapter was trained beside?",
        3: "The sum is rounded again there. To which weights does that lead?",
        0: "They are numbered from 1. Which one did the adapter see?",
        4: "There are three. Which one did the adapter see?",
    }
    praise = "The restored ones: nothing moves away from under the adapter."
    return judge_number(mine, 1, bugs, praise, "Which weights did the adapter see in training?")


@exercise(
    hints=(
        "A record is its question, then its answer. The cut takes what is behind max_length.",
        "300 of the 320 places are the question's, and they teach nothing.",
        "320 - 300 places are left for the answer.",
    ),
    solution="mine = 320 - 300",
)
def tokens_that_teach(mine: Any) -> Verdict:
    """Judge how many tokens teach: a question of 300, an answer of 80, cut at 320."""
    bugs = {
        80: "Does the whole answer lie before place 320?",
        320: "Do the question's tokens teach?",
        380: "Those are all tokens before the cut. Which of them are left, and which teach?",
        60: "Those are the ones that are cut away. How many of the answer's are left?",
        300: "Those are the question's. Do they teach?",
        0: "Does the answer begin before place 320, or behind it?",
    }
    praise = "Twenty, and the token that ends the answer is not among them: it was cut away."
    return judge_number(mine, 20, bugs, praise, "Which places are the answer's, after the cut?")


def rows_to_repair() -> list[Record]:
    """Return eleven rows of a file that somebody put together in a hurry."""
    from ftcourse.data import load_dialogues

    fields = ("prompt", "completion")
    good = [{name: row[name] for name in fields} for row in load_dialogues("train")[100:105]]
    other = {name: load_dialogues("train")[110][name] for name in fields}
    leaked = {name: load_dialogues("test")[7][name] for name in fields}
    turned = {"prompt": other["completion"], "completion": other["prompt"]}
    again = good[1] | {"prompt": good[1]["prompt"].upper()}
    cut = {name: load_dialogues("train")[111][name] for name in fields}
    cut["completion"] = cut["completion"].partition(" Your next step:")[0]
    empty = {"prompt": "Hello, my Wren hums. Why?", "completion": " "}
    number = {"prompt": "What does a spare propeller cost?", "completion": 12}
    return [good[0], empty, good[1], turned, leaked, good[2], again, good[3], number, cut, good[4]]


@exercise(
    hints=(
        "find_problems(rows) names two rows. Five more kinds of mistake have a valid form.",
        "Compare with load_dialogues('test'), compare letters in lower case, and ask voice_checks.",
        "Six rows stay: five good ones, and one whose question and answer change places.",
    ),
    solution="""
from ftcourse.check.finetune import rows_to_repair

rows = rows_to_repair()
rows[3] = {"prompt": rows[3]["completion"], "completion": rows[3]["prompt"]}
mine = [rows[number] for number in (0, 2, 3, 5, 7, 10)]
""",
)
def repaired(mine: Any) -> Verdict:
    """Judge the rows of a repaired file: all that can be saved, and nothing that does harm."""
    if not isinstance(mine, list | tuple) or not all(isinstance(row, Mapping) for row in mine):
        return Verdict(False, f"A list of records is asked for. Is yours {a_type(mine)}?")
    if not mine:
        return Verdict(False, "Nothing is left. Which of the rows are good as they are?")
    question = next((ask for ask, asked in _questions(mine).items() if asked()), "")
    praise = "Six rows that teach what you want, and none that you will be judged with."
    return Verdict(not question, question or praise)


def _questions(rows: Rows) -> dict[str, Callable[[], bool]]:
    """Return the questions about rows, each with whether it must be asked; the first is asked."""
    from ftcourse.data import load_dialogues
    from ftcourse.records import find_problem
    from ftcourse.voice import voice_checks

    given = rows_to_repair()
    turned = given[3]["completion"], given[3]["prompt"]
    letters = {words_of(row["prompt"]) for row in load_dialogues("test")}
    pairs = [(str(row.get("prompt")), str(row.get("completion"))) for row in rows]
    asked = [words_of(prompt) for prompt, _ in pairs]

    def kept(answer: str) -> bool:
        return all(voice_checks(answer).values())

    good = {(given[n]["prompt"], given[n]["completion"]) for n in (0, 5, 7, 10)}
    good.add((given[2]["prompt"], given[2]["completion"]))
    shout = {words_of(given[2]["prompt"])}
    return {
        "find_problems still names a row. Can a model learn from an empty answer, or a number?": (
            lambda: any(find_problem(dict(row)) for row in rows)
        ),
        "One answer reads as a letter, and its question as an answer. Which way round are they?": (
            lambda: any(kept(prompt) and not kept(answer) for prompt, answer in pairs)
        ),
        "Is one of these letters also among those that judge the model, load_dialogues('test')?": (
            lambda: bool(letters & {*asked})
        ),
        "Two rows ask the same. Do capitals make another letter of it?": (
            lambda: len({*asked}) < len(asked)
        ),
        "One answer stops in the middle. Which rule does voice_checks find broken?": (
            lambda: not all(kept(answer) for _, answer in pairs)
        ),
        "One row had question and answer exchanged. Can it be repaired instead of dropped?": (
            lambda: turned not in pairs
        ),
        "A good row is gone, or is not as it was. Which of the eleven had no mistake?": (
            lambda: (
                bool({p for p in good if words_of(p[0]) not in shout} - {*pairs})
                or not shout & {*asked}
            )
        ),
    }


def words_of(text: str) -> tuple[str, ...]:
    """Return a text's words in small letters, whatever stands between them."""
    return tuple(text.lower().split())


@exercise(
    hints=(
        "Make a set of what is asked in held_out, in small letters and split into words.",
        "Go through the records: one may train if its words are in no set; then add them.",
        "words = tuple(record['prompt'].lower().split()) is what you look up, and then add.",
    ),
    solution="""
def may_train(records, held_out):
    seen = {tuple(each["prompt"].lower().split()) for each in held_out}
    flags = []
    for record in records:
        words = tuple(record["prompt"].lower().split())
        flags.append(words not in seen)
        seen.add(words)
    return flags

mine = may_train
""",
)
def rows_that_may_train(mine: Any) -> Verdict | None:
    """Judge a function that says of each record whether it may be trained on."""
    bugs = {
        "Do you look into held_out? A model that read the exam passes it.": _flags(held=False),
        "Is a question asked twice a leak only if it is held out? Look inside records, too.": (
            _flags(twice="all")
        ),
        "Do you compare answers, too? The question alone is what leaks.": _flags(
            key=lambda r: (r["prompt"].lower().split(), r["completion"])
        ),
        "Are 'My Wren' and 'MY WREN' two questions?": _flags(key=lambda r: r["prompt"].split()),
        "How many spaces stand between two words? It does not matter.": _flags(
            key=lambda r: r["prompt"].lower()
        ),
        "Of two records that ask the same, does none stay?": _flags(twice="none"),
        "Of records that ask the same, does the first stay, or the last?": _flags(twice="last"),
        "Is True for a record that may train, or for one that may not?": (
            lambda *case: [not flag for flag in _flags()(*case)]
        ),
    }
    praise = "A few lines, and the first thing to run on any file. `audit` does it for near copies."
    stops = "Both arguments are lists of records with 'prompt' and 'completion'."
    return judge_function(mine, _files, _flags(), bugs, praise, stops)


def _flags(
    held: bool = True,
    twice: str = "first",
    key: Callable[[Mapping[str, str]], Any] = lambda row: words_of(row["prompt"]),
) -> Callable[[Rows, Rows], list[bool]]:
    """Return the function that is asked for, or one with a mistake in it."""

    def may_train(records: Rows, held_out: Rows) -> list[bool]:
        keys = [str(key(row)) for row in records]
        exam = {str(key(row)) for row in held_out} if held else set()
        stays = {
            "all": lambda n: True,
            "first": lambda n: keys[n] not in keys[:n],
            "last": lambda n: keys[n] not in keys[n + 1 :],
            "none": lambda n: keys.count(keys[n]) == 1,
        }[twice]
        return [each not in exam and stays(n) for n, each in enumerate(keys)]

    return may_train


def _files() -> list[tuple]:
    """Return pairs of records and held-out records."""
    files = (
        (["My Wren hums.", "my  wren hums.", "It fell.", "It fell.", "Why?"], ["Help!", "WHY?"]),
        (["A b", "a b", "c", "C d", "A  B"], ["c  D"]),
        (["One", "two", "three"], []),
        (["Where is it?", "Where is it?", "Where  IS it?"], ["here", "there"]),
    )
    return [tuple(list(map(_row, side, range(9))) for side in pair) for pair in files]


def _row(prompt: str, number: int) -> Record:
    return {"prompt": prompt, "completion": f"answer {number % 3}"}


@exercise(
    hints=(
        "Old texts help ordinary text. Which rows bring the voice to the answers about pages?",
        "Only branded answers about pages do. Two mixtures with them reach both shares, or three.",
        "4 letters + 6 branded answers about pages + 2 old texts, with pages 1.",
    ),
    solution="""
from ftcourse.widgets.finetune import finetune_panel

panel = finetune_panel()
panel.controls["pages"].value = 1
panel.controls["mixture"].value = (
    "4 letters + 6 branded answers about pages + 2 old texts"
)
mine = panel
""",
)
def keeps_reading(mine: Any) -> Verdict:
    """Judge a panel whose mixture must keep reading, in the voice, and hurt old texts least."""
    from ftcourse.effects import effects, general_loss, mixtures

    if not {"mixture", "beside", "pages"} <= set(getattr(mine, "controls", ())):
        return Verdict(False, "The panel itself is asked for: check.keeps_reading(panel).")
    runs, chosen = mixtures(), mine.values
    found = {name: effects(each) for name, each in runs.items()}
    good = [
        name
        for name, each in found.items()
        if each["letters: in voice"].mean >= 0.95 and each["pages: both"].mean >= 0.7
    ]
    best = min(good, key=lambda name: general_loss(runs[name]).mean)
    own = found[chosen["mixture"]]
    asks = {
        "One page is asked for. What does the third control say?": chosen["pages"] != 1,
        "Do enough letters have the voice?": own["letters: in voice"].mean < 0.95,
        "Is any answer about a page in the voice? Which rows would show it how?": (
            own["pages: in voice"].mean < 0.5
        ),
        "Right and in the voice, both at once: is it 70 %?": own["pages: both"].mean < 0.7,
        "Both shares are reached. Is there a mixture with a lower loss of general text?": (
            chosen["mixture"] != best
        ),
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    return Verdict(not ask, ask or "It speaks, it reads, and it remembers the old texts.")


def _right(mixture: str) -> float:
    """Return the recorded share of right answers about one page, over the seeds."""
    from ftcourse.effects import effects, mixtures

    return effects(mixtures()[mixture])["pages: right"].mean


@exercise(
    hints=(
        "Three shares: letters alone, letters alone with 80 steps, and the mixture.",
        "effects(mixtures()['12 letters, 80 steps'])['pages: right'].mean is the second one.",
        "How far the second is above the first, over how far the third is above the first.",
    ),
    solution="""
from ftcourse.effects import effects, mixtures

names = ("12 letters", "12 letters, 80 steps", "8 letters + 4 old texts")
alone, fewer, mixed = (effects(mixtures()[n])["pages: right"].mean for n in names)
mine = 100 * (fewer - alone) / (mixed - alone)
""",
)
def explained_by_fewer(mine: Any) -> Verdict:
    """Judge how many percent of what old texts bring back are due to fewer letters."""
    names = ("12 letters", "12 letters, 80 steps", "8 letters + 4 old texts")
    alone, fewer, mixed = map(_right, names)
    right = 100 * (fewer - alone) / (mixed - alone)
    bugs = {
        100 - right: "That is what the old texts explain. And the fewer letters?",
        right / 100: "Is that a share? Percent are asked for.",
        100 * (fewer - alone): "Those are points. Of how many points, in percent?",
        100 * (mixed - alone): "That is the whole difference. How much of it is there at 80 steps?",
        100
        * fewer: "That is the share of right answers itself. How far is it above letters alone?",
        100 * fewer / mixed: "Do both numbers begin at zero, or at letters alone?",
    }
    praise = (
        f"{right:.0f} percent. The friend has found a part of the cause. The rest is due to the "
        "old texts: rows that need what the model could do before hold it where it is."
    )
    return judge_number(mine, right, bugs, praise, "Which three shares did you use?", within=0.02)
