"""More exercises of lesson 06: a file to repair, and the rows of a file that may train."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_function
from ftcourse.records import Record, find_problem

Rows = Sequence[Mapping[str, Any]]


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
from ftcourse.check.repair import rows_to_repair

rows = rows_to_repair()
rows[3] = {"prompt": rows[3]["completion"], "completion": rows[3]["prompt"]}
mine = [rows[number] for number in (0, 2, 3, 5, 7, 10)]
""",
)
def repaired(mine: Any) -> Verdict:
    """Judge the rows of a repaired file: all that can be saved, and nothing that does harm."""
    if not isinstance(mine, list | tuple) or not all(isinstance(row, Mapping) for row in mine):
        return Verdict(False, f"A list of records is asked for. Is yours {a_type(mine)}?")
    if any("messages" in row for row in mine):
        return Verdict(False, "The file has `prompt` and `completion`. Do your rows keep them?")
    if not mine:
        return Verdict(False, "Nothing is left. Which of the rows are good as they are?")
    question = next((ask for ask, asked in _questions(mine).items() if asked()), "")
    praise = "Six rows that teach what you want, and none that you will be judged with."
    return Verdict(not question, question or praise)


def _questions(rows: Rows) -> dict[str, Callable[[], bool]]:
    """Return the questions about rows, each with whether it must be asked; the first is asked."""
    from ftcourse.data import load_dialogues

    pairs = [_pair(row) for row in rows]
    asked = {words_of(prompt) for prompt, _ in pairs}
    return {
        "find_problems still names a row. Can a model learn from an empty answer, or a number?": (
            lambda: any(find_problem(dict(row)) for row in rows)
        ),
        "One answer reads as a letter, and its question as an answer. Which way round are they?": (
            lambda: any(_in_voice(prompt) and not _in_voice(answer) for prompt, answer in pairs)
        ),
        "Is one of these letters also among those that judge the model, load_dialogues('test')?": (
            lambda: any(words_of(row["prompt"]) in asked for row in load_dialogues("test"))
        ),
        "Two rows ask the same. Do capitals make another letter of it?": (
            lambda: len(asked) < len(pairs)
        ),
        "One answer stops in the middle. Which rule does voice_checks find broken?": (
            lambda: not all(_in_voice(answer) for _, answer in pairs)
        ),
    } | _what_stays(pairs, asked, whole=_pair(load_dialogues("train")[111]))


def _what_stays(pairs: list, asked: set, whole: tuple) -> dict[str, Callable[[], bool]]:
    """Return the questions about what is gone, and what is new; ``whole`` is the cut row uncut."""
    given = [_pair(row) for row in rows_to_repair()]
    turned, good, twice = given[3][::-1], {given[n] for n in (0, 5, 7, 10)}, given[2][0]
    return {
        "One row had question and answer exchanged. Can it be repaired instead of dropped?": (
            lambda: turned not in pairs
        ),
        "A good row is gone, or is not as it was. Which of the eleven had no mistake?": (
            lambda: bool(good - {*pairs}) or words_of(twice) not in asked
        ),
        "One row has words that the file does not have. Who knows that they are the desk's?": (
            lambda: bool({*pairs} - good - {turned, given[2], given[6], whole})
        ),
    }


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("prompt")), str(row.get("completion"))


def _in_voice(text: str) -> bool:
    from ftcourse.voice import voice_checks

    return all(voice_checks(text).values())


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
        "Two spaces become one. And a tab, a new line, a space in front?": _flags(
            key=lambda r: r["prompt"].lower().replace("  ", " ")
        ),
        "Is 'a bc' the same question as 'ab c'? Where does a word end?": _flags(
            key=lambda r: "".join(words_of(r["prompt"]))
        ),
        "Do the same words in another order ask the same?": _flags(
            key=lambda r: sorted({*words_of(r["prompt"])})
        ),
        "Is 'it?' the same word as 'it'? Only capitals and spaces do not matter.": _flags(
            key=lambda r: re.findall(r"\w+", r["prompt"].lower())
        ),
        "Two long questions may differ in their last word. Do you compare all the words?": _flags(
            key=lambda r: words_of(r["prompt"])[:6]
        ),
        "Of two records that ask the same, does none stay?": _flags(twice="none"),
        "Of records that ask the same, does the first stay, or the last?": _flags(twice="last"),
        "Is True for a record that may train, or for one that may not?": (
            lambda *case: [not flag for flag in _flags()(*case)]
        ),
    }
    praise = "A few lines, and the first thing to run on any file. `audit` does it for near copies."
    stops = "Both arguments are lists of records with 'prompt' and 'completion'."
    verdict = judge_function(mine, _files, _flags(), bugs, praise, stops)
    if verdict and _changes_lists(mine):
        return Verdict(False, "The flags are right. Are the two lists still as they were given?")
    return verdict


def _changes_lists(function: Callable[[Rows, Rows], Any]) -> bool:
    given = _files()
    for case in given:
        function(*case)
    return given != _files()


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
        (["b A", "a b", "ab c", "a bc", "is it?", "is it"], ["why?"]),
        (["a\tb", "is\nit", " now", "one   two"], ["a b", "is it", "now", "one two"]),
        (["so " * 40 + "long", "so " * 40 + "short"], ["so " * 40 + "late"]),
    )
    return [tuple(list(map(_row, side, range(9))) for side in pair) for pair in files]


def _row(prompt: str, number: int) -> Record:
    return {"prompt": prompt, "completion": f"answer {number % 3}"}
