"""An arm's answers to questions, and the try of an arm that does best.

The two are one file because each needs the other: a try is judged by its answers, and RAG + LoRA
searches as the best try of RAG does.
"""

from collections.abc import Callable, Sequence
from functools import cache

from sweep import Run

from arms.answering import letters, look_up, model_of, prompt_of, read, reply
from arms.questions import questions
from arms.recording import record
from arms.subject import of_subject, subject
from arms.tries import SEARCHING
from ftcourse.data import Record, load_dialogues
from ftcourse.evaluate import advice_score
from ftcourse.handbook import fact_score
from ftcourse.voice import voice_score

CRITERION = ("facts right", "facts in voice", "letters in voice", "letters with advice")
"""The measure of a try: the mean of these shares, alike for all arms."""


def answers(
    arm: str, choice: str, seed: int, asked: Sequence[Record], system: str = "", found=None
) -> list[str]:
    """Return an arm's answers to questions about facts.

    ``system`` stands behind the arm's own system message; ``found`` is a store, if not the usual
    one, or what was found for each question.
    """
    model, settings = model_of(arm, choice, seed), prompt_of(arm, choice)
    if arm not in SEARCHING:
        whole = " ".join(filter(None, [settings.pop("system", ""), system]))
        return reply(model, [row["question"] for row in asked], whole, **settings)
    how = subject().choices("RAG")[choice] if arm == "RAG" else search_of(arm)
    hits = found if isinstance(found, list) else [look_up(row, how, found) for row in asked]
    return read(model, asked, hits, how["order"], system)


def search_of(arm: str) -> Run:
    """Return how an arm searches; RAG + LoRA as RAG does best on validation."""
    return subject().choices("RAG")[chosen("RAG")]


@of_subject
@cache
def chosen(arm: str) -> str:
    """Return the try of an arm that did best on validation."""
    choices = subject().choices(arm)
    settings = [{"task": "tune", "arm": arm, "choice": each, "seed": 0} for each in choices]
    return best(settings, "choice", tune)


def best(settings: list[Run], name: str, judge: Callable[..., Run]) -> str:
    """Run the tries that were not run; return the best one's choice, of equal ones the first."""
    runs = record(settings, {each["task"]: judge for each in settings})
    tried = [next(r for r in runs if each.items() <= r.items()) for each in settings]
    return max(tried, key=lambda run: run["criterion"])[name]


def tune(arm: str, choice: str, seed: int) -> Run:
    """Judge one try of an arm on validation."""
    facts, asked = questions("known", "validation"), load_dialogues("validation")[:60]
    told, written = answers(arm, choice, seed, facts), letters(arm, choice, seed, asked)
    scores = (
        fact_score(told, facts),
        voice_score(told),
        voice_score(written),
        advice_score(written, asked),
    )
    counts = {name: score.successes for name, score in zip(CRITERION, scores, strict=True)}
    return counts | {"n": 60, "criterion": round(sum(s.share for s in scores) / 4, 4)}
