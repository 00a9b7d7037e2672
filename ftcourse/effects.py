"""What a run taught and what it broke: letters, answers about pages, and old texts beside them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftcourse.data import read_records
from ftcourse.evaluate import Score, advice_score, answer_all, text_loss
from ftcourse.files import course_path
from ftcourse.handbook import fact_score, holds_value
from ftcourse.records import Record
from ftcourse.source import Text
from ftcourse.sweeps import Mean, Run, load_sweep, select
from ftcourse.voice import voice_score

KINDS = {  # rows of a step, as the sweep calls them, and in words
    "letters": "letters",
    "neutral": "neutral answers about pages",
    "branded": "branded answers about pages",
    "general": "old texts",
}
STEPS, RATE = 120, 3e-3  # of the mixtures that are compared
UNTUNED = "the model before"
SHOWN = (  # what the lesson draws
    UNTUNED,
    "12 letters",
    "8 letters + 4 old texts",
    "4 letters + 8 neutral answers about pages",
    "4 letters + 8 branded answers about pages",
)
RULES = {  # the columns of a table of prompts
    "prompt": "prompt",
    "exact": "begins with the order",
    "warm": "opens_warmly",
    "step": "one_next_step",
    "no blame": "blames_nobody",
    "sign-off": "signs_off",
    "all": "all_rules",
    "advice": "advice",
}
RUNS = {  # the columns of a table of mixtures
    "steps": "steps",
    "rate": "learning_rate",
    "letters voiced": "validation: letters in voice",
    "letters right": "validation: letters with advice",
    "pages voiced": "validation: in voice, 1 p",
    "pages right": "validation: right, 1 p",
}
MEASURES = {  # what is compared, and where the sweep has it
    "letters: in voice": "letters in voice",
    "letters: right advice": "letters with advice",
    "pages: in voice": "in voice",
    "pages: right": "right",
    "pages: both": "both",
    "silent pages: declines": "declines",
}
ROWS = {  # which recorded answers are compared: the split, and the pages in a prompt
    "validation": ("validation", 1),
    "test": ("test", 1),
    "test, three pages": ("test", 3),
}


@dataclass(frozen=True)
class Judged:
    """A model's answers to letters and to questions about pages, judged."""

    scores: Mapping[str, Score]
    wrong: tuple[str, ...]
    """Wrong answers about pages: the question, the right value, and below it the answer."""
    general_loss: float
    """Loss of a token of the course's general texts, in nats."""

    def __repr__(self) -> str:
        """Return a line for each score, and one for the loss."""
        lines = [f"{name:17} {score}" for name, score in self.scores.items()]
        return "\n".join([*lines, f"general text      {self.general_loss:.2f} nats a token"])

    def percent(self, name: str) -> int:
        """Return one of the scores in whole percent."""
        return round(100 * self.scores[name].share)


def judge_both(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    letters: Sequence[Record],
    pages: Sequence[Record],
) -> Judged:
    """Return a model's voice and facts, on letters and about pages, and its loss of old texts.

    A letter is answered right if the answer names the desk's own next step (``advice_score``).
    """
    spoken = answer_all(model, tokenizer, letters)
    read = answer_all(model, tokenizer, pages)
    scores = {
        "letters in voice": voice_score(spoken),
        "letters right": advice_score(spoken, letters),
        "pages in voice": voice_score(read),
        "pages right": fact_score(read, pages),
    }
    old = [record["text"] for record in read_records(course_path("data/general.jsonl"))[:100]]
    return Judged(scores, tuple(wrong_answers(pages, read)), text_loss(model, tokenizer, old))


def wrong_answers(records: Sequence[Record], answers: Sequence[str]) -> list[str]:
    """Return the questions whose answer lacks the value: question, value, and the answer."""
    return [
        f"{record['prompt'].rpartition('Question: ')[2]}  ({record['value']})\n    {answer}"
        for record, answer in zip(records, answers, strict=True)
        if not holds_value(record["value"], answer)
    ]


def show_runs(runs: Sequence[Run], columns: Mapping[str, str] = RUNS) -> Text:
    """Return recorded runs as a table, shares in percent; ``columns`` maps heads to results."""
    rows = [[*columns], *([_say(run[key], key) for key in columns.values()] for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if isinstance(runs[0][key], str) else str.rjust for key in columns.values()]
    lines = ("  ".join(s(x, w) for s, x, w in zip(sides, r, widths, strict=True)) for r in rows)
    return Text("\n".join(line.rstrip() for line in lines))


def _say(value: object, key: str) -> str:
    is_share = isinstance(value, float) and not key.endswith(("rate", "loss"))
    return f"{value:.0%}" if is_share else str(value)


def changes() -> list[Run]:
    """Return what teaching a changed fact did, a row for each setting: means over its runs.

    ``others`` is the share of the other facts that are right, ``before`` what it was, ``range`` the
    least and the most of a run. A seed draws old rows: without them all seeds are one run.
    """
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in select(load_sweep("finetune"), task="changes"):
        if run["rehearsed"] or not run["seed"]:
            groups[run["learning_rate"], run["voice"], run["rehearsed"]].append(run)
    names = ("learning_rate", "voice", "rehearsed")
    return [
        dict(zip(names, key, strict=True))
        | {"learned": f"{sum(run['learned'] for run in runs)} of {len(runs)}"}
        | {"before": mean_of(runs, "others before").mean, "others": mean_of(runs, "others").mean}
        | {"range": " to ".join(f"{end([r['others'] for r in runs]):.0%}" for end in (min, max))}
        for key, runs in sorted(groups.items())
    ]


def mixtures(rate: float = RATE) -> dict[str, list[Run]]:
    """Return the recorded runs by mixture in words, without those of fewer than three seeds."""
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in select(load_sweep("finetune"), task="mixtures", learning_rate=rate):
        groups[(-run["steps"], *(-run[kind] for kind in KINDS))].append(run)
    kept = (runs for _, runs in sorted(groups.items()) if len(runs) > 2 or not runs[0]["steps"])
    return {_words(runs[0]): runs for runs in kept}


def _words(run: Run) -> str:
    """Return a mixture in words.

    >>> _words({"letters": 8, "neutral": 4, "branded": 0, "general": 0, "steps": 120})
    '8 letters + 4 neutral answers about pages'
    """
    if not run["steps"]:
        return UNTUNED
    parts = [f"{run[kind]} {words}" for kind, words in KINDS.items() if run[kind]]
    fewer = f", {run['steps']} steps" if run["steps"] != STEPS else ""
    return " + ".join(parts) + fewer


def effects(runs: Sequence[Run], rows: str = "test") -> dict[str, Mean]:
    """Return means over seeds, of one of ``ROWS``; silent pages were asked with test rows only."""
    split, pages = ROWS[rows]
    names = {
        words: f"{split}: {name}" + f", {pages} p" * words.startswith("pages")
        for words, name in MEASURES.items()
    }
    return {words: mean_of(runs, name) for words, name in names.items() if name in runs[0]}


def mean_of(runs: Sequence[Run], result: str) -> Mean:
    """Return the mean of a result over the seeds of the same setting."""
    return Mean(tuple(run[result] for run in runs))


def general_loss(runs: Sequence[Run], rows: str = "test") -> Mean:
    """Return the loss of a token of general text, in nats."""
    return mean_of(runs, f"{ROWS[rows][0]}: general loss")
