"""What an arm learns when facts change, what it forgets, and how long it takes.

Arms that search get new pages; closed-book arms are trained further, in the way that did best.
"""

import random
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median

from sweep import Run
from torch import nn

from arms.answering import reply
from arms.changes import OTHERS, all_changes, new_rows, old_rows, unchanged
from arms.choosing import answers, best, chosen
from arms.questions import pages, questions, right, share, stored
from arms.recording import clock, kept
from arms.subject import of_subject, tokenizer
from arms.training import config_of, folder_of, trained
from arms.tries import SEARCHING, TRAINED, WAYS
from data.making.adapter_rows import fact_rows, mixed
from ftcourse.data import Record, encode
from ftcourse.handbook import holds_value
from ftcourse.loop import draw_batches, train_on
from ftcourse.models import load_finetuned

ONE_BY_ONE = 6
NO_UPDATE = "holds no fact that could be updated: no page, no training"


def one_fact(arm: str, choice: str, seed: int) -> Run:
    """Give an arm one changed fact at a time, six times; judge it and the facts that stayed."""
    names = ("one fact learned", "others right after one fact", "seconds, one fact")
    if arm not in TRAINED + SEARCHING:
        return dict.fromkeys(names, NO_UPDATE)
    runs = [after_one(arm, choice, seed, row) for row in questions("changed")[:: 30 // ONE_BY_ONE]]
    stayed = sum(run["others"] for run in runs) / len(runs)
    way = {} if arm in SEARCHING else {"way": chosen_way(arm, "one fact")}
    return way | {
        "one fact learned": share(run["learned"] for run in runs),
        "others right after one fact": [round(stayed), OTHERS],
        "seconds, one fact": round(median(run["seconds"] for run in runs), 4),
        "others before": others_now(arm, choice, seed),
        "each": runs,
    }


def after_one(arm: str, choice: str, seed: int, row: Record) -> Run:
    """Give an arm one changed fact; return what it learned, what it still knows, the seconds."""
    if arm in SEARCHING:
        with tempfile.TemporaryDirectory() as folder, stored(Path(folder, "p.sqlite")) as made:
            spent = updated(made, {row["page"]})
            learned = answers(arm, choice, seed, [row], found=made)
            others = answers(arm, choice, seed, unchanged(), found=made)
    else:
        way = WAYS["one fact"][chosen_way(arm, "one fact")]
        model, seconds = retrained(arm, choice, seed, [row], way)
        spent = [seconds]
        learned = reply(model, [row["question"]])
        others = reply(model, [other["question"] for other in unchanged()])
    pairs = zip(unchanged(), others, strict=True)
    return {
        "fact": row["of"],
        "learned": holds_value(row["value"], learned[0]),
        "others": sum(holds_value(other["value"], text) for other, text in pairs),
        "seconds": round(sum(spent), 4),
        "answer": learned[0],
    }


def others_now(arm: str, choice: str, seed: int) -> list[int]:
    """Return how many of the other facts are right before anything changes."""
    texts = answers(arm, choice, seed, unchanged())
    return share(holds_value(r["value"], t) for r, t in zip(unchanged(), texts, strict=True))


def forty_facts(arm: str, choice: str, seed: int) -> Run:
    """Give an arm all forty changed facts; judge those for reporting, and the facts that stayed."""
    names = ("changed fact, after", "others right after forty", "seconds, forty facts")
    if arm not in TRAINED + SEARCHING:
        return dict.fromkeys(names, NO_UPDATE)
    found = {}
    if arm in SEARCHING:
        with tempfile.TemporaryDirectory() as folder, stored(Path(folder, "p.sqlite")) as made:
            spent = sum(updated(made, {row["page"] for row in all_changes()}))
            texts = answers(arm, choice, seed, questions("changed"), found=made)
            others = answers(arm, choice, seed, unchanged(), found=made)
    else:
        found["way"] = chosen_way(arm, "forty facts")
        model, spent = retrained(
            arm, choice, seed, all_changes(), WAYS["forty facts"][found["way"]]
        )
        texts = reply(model, [row["question"] for row in questions("changed")])
        others = reply(model, [row["question"] for row in unchanged()])
    kept(arm, seed, "changed after", texts)
    found |= by_old_wording(arm, texts)
    pairs = zip(unchanged(), others, strict=True)
    counts = (
        share(right("changed", texts)),
        share(holds_value(row["value"], text) for row, text in pairs),
        round(spent, 3),
    )
    return found | dict(zip(names, counts, strict=True))


def by_old_wording(arm: str, texts: Sequence[str]) -> Run:
    """Return new values told where the way of asking was trained with the old value, or was not."""
    if arm in SEARCHING:
        return {}
    old = {row["prompt"] for row in fact_rows(random.Random(0))}
    seen = [row["question"] in old for row in questions("changed")]
    pairs, name = (
        list(zip(right("changed", texts), seen, strict=True)),
        "changed fact, after, asked",
    )
    return {
        f"{name} as in an old row": share(told for told, known in pairs if known),
        f"{name} otherwise": share(told for told, known in pairs if not known),
    }


def updated(made, names: Collection[str]) -> list[float]:
    """Replace pages of a store by those of the second edition; return the seconds of each."""
    news, spent = {page.id: page for page in pages(2)}, []
    for name in sorted(names):
        begin = clock()
        made.update(replace(news[name], edition=1))
        spent.append(clock() - begin)
    return spent


def retrained(
    arm: str, choice: str, seed: int, changes: Sequence[Record], way: Run
) -> tuple[nn.Module, float]:
    """Go on training a copy of an arm's adapter on changed facts; return it with the seconds."""
    trained(arm, choice, seed)  # so that it is there
    model = load_finetuned(config_of(arm, choice, seed), folder_of(arm, choice, seed))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    begin, rng = clock(), random.Random(f"changes {seed}")
    batches = way["new"] + way["old"], way["steps"]
    rows = mixed(rng, [(way["new"], new_rows(changes))], way["steps"])
    if way["old"]:
        rows = mixed(
            rng, [(way["new"], new_rows(changes)), (way["old"], old_rows(seed))], way["steps"]
        )
    length = config_of(arm, choice, seed).max_length
    train_on(model, draw_batches(encode(rows, tokenizer(), length), *batches, seed), way["rate"])
    return model.eval(), clock() - begin


@of_subject
@cache
def chosen_way(arm: str, task: str) -> str:
    """Return the way to learn changed facts that did best on the facts for choosing."""
    way = {"task": f"tune {task}", "arm": arm, "choice": chosen(arm)}
    settings = [way | {"way": name, "seed": 0} for name in WAYS[task]]
    return best(settings, "way", partial(try_way, task))


def try_way(task: str, arm: str, choice: str, way: str, seed: int) -> Run:
    """Judge one way to learn changed facts on those for choosing, and on others for choosing."""
    news, others = questions("changed", "validation"), unchanged("validation")
    if task == "one fact":
        runs = [retrained(arm, choice, seed, [row], WAYS[task][way])[0] for row in news]
        learned = [told_by(model, [row]) for model, row in zip(runs, news, strict=True)]
        stayed = [told_by(model, others) for model in runs]
    else:
        model, _ = retrained(arm, choice, seed, all_changes(), WAYS[task][way])
        learned, stayed = [told_by(model, news)], [told_by(model, others)]
    result = {"learned": added(learned), "others right": added(stayed)}
    result["criterion"] = round(sum(a / n for a, n in result.values()) / 2, 4)
    return result


def told_by(model: nn.Module, rows: Sequence[Record]) -> list[int]:
    """Return how many questions a model answers right from memory."""
    texts = reply(model, [row["question"] for row in rows])
    return share(holds_value(r["value"], text) for r, text in zip(rows, texts, strict=True))


def added(shares: Sequence[list[int]]) -> list[int]:
    """Return the successes and the counts of several shares together."""
    return [sum(part) for part in zip(*shares, strict=True)]
