"""The exercises of lesson 08: two on lesson 07, a price, domination, a zero, and the panel."""

from collections.abc import Callable
from typing import Any

from ftcourse.check.exercise import Verdict, a_type, exercise, judge_function, judge_number


@exercise(
    hints=(
        "What does the store read first: the label, or the words?",
        "A page that the reader may not see is never scored, so it stands in no prompt.",
        "In lesson 7 the answer was the same as without any staff page: nobody got one.",
    ),
    solution="mine = 0",
)
def secrets_behind_a_label(mine: Any) -> Verdict:
    """Judge how many of 100 who ask get a secret whose label is read before the search."""
    bugs = {
        85: "That is what a rule in the prompt let out. What stands in the prompt with a label?",
        100: "Everybody? The model can tell what it reads. What does it read here?",
        5: "A few, as a margin? Through which door would they come?",
        50: "Half of them? What does the model read, if the page was never found?",
    }
    praise = "None: what was never read cannot be told. It holds for any model behind the store."
    return judge_number(mine, 0, bugs, praise, "What does the model read of a page with a label?")


@exercise(
    hints=(
        "Remember the picture with five places: which way did it rise?",
        "What stands directly before the question is read best by this model.",
        "The order was called best last.",
    ),
    solution='mine = "last"',
)
def place_that_is_read(mine: Any) -> Verdict:
    """Judge at which place of five passages the reader of lesson 7 read the right page best."""
    if not isinstance(mine, str):
        return Verdict(False, f'A word is asked for, such as "first". Is yours {a_type(mine)}?')
    asks = {
        "first": "So a list of hits has it. How many of 100 were read right at the first place?",
        "middle": "That is where large models are weak. Which way did our picture rise?",
        "any": "Is it the same everywhere? Which two orders did we compare?",
        "one by one": "That is one page in each prompt. Here all five stand in one: where?",
    }
    word = mine.strip().lower().removesuffix(".").removeprefix("the ")
    praise = "Just before the question. It cost nothing, and it had to be measured."
    ask = asks.get(word, 'Choose "first", "middle" or "last".')
    last = word in ("last", "best last", "fifth", "5", "5th", "end")
    return Verdict(True, praise) if last else Verdict(False, ask)


@exercise(
    hints=(
        "How much time does the adapter save in one question?",
        "20 ms are 0.02 s. How often do they go into 300 s?",
        "300 / (0.080 - 0.060).",
    ),
    solution="mine = 300 / (0.080 - 0.060)",
)
def paid_back(mine: Any) -> Verdict:
    """Judge after how many questions 300 s of training have paid: 60 ms for each instead of 80."""
    bugs = {
        15: "Seconds are divided by milliseconds there. How many seconds are 20 ms?",
        5000: "That is how many it answers in 300 s. What does it save in each question?",
        3750: "That is how many RAG answers in 300 s. What does the adapter save in each?",
        6: "300 times 20 ms? How many savings of 20 ms make 300 s?",
        -15000: "The number is right. Which of the two is faster?",
    }
    praise = (
        "And each change of a fact that needs training starts the count again: whether it pays "
        "hangs on how long the facts stay."
    )
    return judge_number(mine, 15000, bugs, praise, "What does one question save?")


# --- one arm better than another one --------------------------------------------------------


def _gains(a: dict, b: dict, more: set) -> list[float]:
    """Return by how much ``b`` is better than ``a`` in each column; negative where it is worse."""
    return [(b[name] - a[name]) * (1 if name in more else -1) for name in a]


def _never_worse(gains: list[float]) -> bool:
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def _by(test: Callable) -> Callable:
    """Return a comparison of arms that puts a test to the gains."""
    return lambda a, b, more: bool(test(_gains(a, b, more)))


@exercise(
    hints=(
        "Go through the columns. In which direction is each one better?",
        "`b` must be at least as good in all columns. Is that enough if the two are equal?",
        "all(gain >= 0) and any(gain > 0), where gain is b - a, or a - b if less is better.",
    ),
    solution="""
def dominated(a, b, more):
    gains = [b[n] - a[n] if n in more else a[n] - b[n] for n in a]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)

mine = dominated
""",
)
def beaten_everywhere(mine: Any) -> Verdict | None:
    """Judge a function that says whether arm b is never worse than arm a, and once better."""
    right = _by(_never_worse)
    bugs: dict[str, Callable] = {
        "Two arms that are equal: does each dominate the other?": _by(
            lambda gains: min(gains) >= 0
        ),
        "Must b be better in every column? An equal one does no harm.": _by(
            lambda gains: min(gains) > 0
        ),
        "b is better somewhere. May it be worse anywhere?": _by(lambda gains: max(gains) > 0),
        "Is more always better? Think of a leak, or of milliseconds.": (
            lambda a, b, more: right(a, b, {*a})
        ),
        "Is less always better? Look at `more`.": lambda a, b, more: right(a, b, set()),
        "Which of the two is said to lose, a or b?": lambda a, b, more: right(b, a, more),
        "May a gain here pay for a loss there? A sum of percent and seconds has no unit.": _by(
            lambda gains: sum(gains) > 0
        ),
    }
    praise = "Such an arm is never the answer, whatever you need. All others are, for somebody."
    stops = "`a` and `b` have the same columns; `more` is a set of names."
    return judge_function(mine, _pairs, right, bugs, praise, stops)


def _pairs() -> list[tuple]:
    names, more = ("right", "leak", "ms"), {"right"}
    pairs = [
        ((0.9, 0.5, 40), (0.9, 0.0, 40)),  # better once, equal else
        ((0.9, 0.5, 40), (0.9, 0.5, 40)),  # equal
        ((0.8, 0.5, 40), (0.9, 0.0, 30)),  # better everywhere
        ((0.8, 0.0, 40), (0.9, 0.1, 30)),  # worse once
        ((0.9, 0.0, 30), (0.8, 0.5, 40)),  # the other way round
        ((0.1, 0.0, 90), (0.9, 0.2, 10)),  # a sum would say yes
        ((0.8, 0.2, 40), (0.8, 0.3, 50)),  # less is better
        ((0.8, 0.0, 40), (0.9, 0.0, 60)),  # a sum would say no, and one column yes
        ((0.8, 0.2, 40), (0.8, 0.2, 30)),  # better in the last column only
    ]
    named = [[dict(zip(names, each, strict=True)) for each in pair] for pair in pairs]
    return [(a, b, more) for a, b in named]


# --- what a zero is worth, and the panel -----------------------------------------------------


@exercise(
    hints=(
        "Why does somebody tell no secret? Because they keep it, or because they know none.",
        "In which column are the four arms of two kinds, though all four leak nothing?",
        "Look at the facts that they tell: `right, known wording`.",
    ),
    solution='mine = "right, known wording"',
)
def worth_of_a_zero(mine: Any) -> Verdict:
    """Judge which column tells an arm that keeps secrets from one that knows nothing."""
    if not isinstance(mine, str):
        return Verdict(False, f"The name of a column is asked for. Is yours {a_type(mine)}?")
    asks = {
        "leak": "There all four are alike. In which column do they part?",
        "leak, secrecy prompt": "They have no secret to keep with it. What do they know without?",
        "unanswerable, declined": "Who knows nothing declines everything. Does that part the four?",
        "right, new wording": "Hardly any arm tells anything there. Where do some of them?",
        "right, two pages": "That is hard for all of them. Where do some know nearly everything?",
        "poison believed, stuffed": "That tells who reads pages. What is told of the true ones?",
    }
    right = ("right, known wording", "right and known wording")
    word = " ".join(mine.split()).lower().removesuffix(".")
    praise = (
        "Two of the four tell nothing to anybody: their zero costs the whole use. The others tell "
        "most facts to whoever may know them."
    )
    from ftcourse.which_one import COLUMNS

    asks |= {
        name: "It parts them by who has a page. Where is it seen what they tell?"
        for name in COLUMNS
        if name.split(",")[0].startswith(("changed", "one", "others"))
    }
    other = "Choose the name of a column of the table, such as leak."
    if word in COLUMNS:
        other = "Compare the four there. Does it say what they tell to somebody who may know it?"
    return Verdict(word in right, praise if word in right else asks.get(word, other))


@exercise(
    hints=(
        "Which of the needs has the arm that is recommended not met? What does it do badly?",
        "An untuned model has no voice. Which choice makes the voice count?",
        'Set voice to "must", and leave all others where they began.',
    ),
    solution="""
from ftcourse.widgets.which_one import which_one_panel

panel = which_one_panel()
panel.controls["voice"].value = "must"
mine = panel
""",
)
def one_need_turns_it(mine: Any) -> Verdict:
    """Judge a panel: one control moved from where it began, and another arm is recommended."""
    from ftcourse.decision import decide
    from ftcourse.needs import Needs
    from ftcourse.which_one import load_table

    begin = vars(Needs()) | {"card": "T4"}
    if not begin.keys() <= {*getattr(mine, "controls", ())}:
        return Verdict(False, "The panel itself is asked for: check.one_need_turns_it(panel).")
    values, table = mine.values, load_table()
    moved = [name for name in begin if values[name] != begin[name]]
    needs = [{n: v for n, v in each.items() if n != "card"} for each in (begin, values)]
    cards = begin["card"], values["card"]
    both = [decide(Needs(**n), table, c) for n, c in zip(needs, cards, strict=True)]
    (old, new), words = (found.arm for found in both), " and ".join(moved)
    asks = {
        "Nothing is moved. What could somebody need that this arm is bad at?": not moved,
        f"You moved {words}. Which one of them is enough?": len(moved) > 1,
        f"No arm passes with {words} there. Is there a milder choice, or another need?": not new,
        "That is a machine, and no need. Put it back: what could the answers lack?": bool(
            {"model", "card"} & {*moved}
        ),
        f"Still {new}. Some needs turn nothing alone. Which one asks for what {new} is bad at?": (
            old == new
        ),
    }
    ask = next((ask for ask, asked in asks.items() if asked), "")
    why = f"Nothing dropped {old}: which row puts {new} before it?"
    why = f"Which row dropped {old}?" if old in both[1].dropped else why
    praise = f"{words} alone: {new} instead of {old}. {why} And is it close, or thin? Read those "
    praise += "lines before you buy."
    return Verdict(not ask, ask or praise)
