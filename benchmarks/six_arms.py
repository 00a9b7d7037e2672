"""Six ways of answering the same questions: tuned on validation, then measured, with seeds.

Run ``PYTHONPATH=. python benchmarks/six_arms.py`` from the root, or with the names of some arms
behind it; a run that stopped goes on. The questions are those of ``data/six_arms.jsonl``, which was
frozen before. Each arm that has something to choose has four tries, judged on validation by one
measure; then the chosen one is measured, a trained arm with three seeds. ``--model`` takes a model
of the Hub, or a folder in its format, and writes a file of its own: meant for a GPU.
``data/measured/README.md`` says what a line holds. The sections are in ``arms``, beside this file.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

from arms.choosing import chosen
from arms.columns import judged
from arms.costs import cost, timed
from arms.recording import record
from arms.shipping import SHIPPED, ship
from arms.subject import use
from arms.tries import TRAINED, TRIES
from arms.updates import forty_facts, one_fact
from sweep import Run

TASKS: dict[str, Callable[..., Run]] = {
    "measure": judged,
    "cost": cost,
    "one fact": one_fact,
    "forty facts": forty_facts,
    "timing": timed,
}
"""The tasks that fill the columns, for each arm and seed; the last one for all in one go."""


def settings(arm: str) -> Iterator[Run]:
    """Yield the tasks of an arm, with three seeds where it is trained."""
    for seed in (0, 1, 2) if arm in TRAINED else (0,):
        for task in TASKS:
            yield {"task": task, "arm": arm, "choice": chosen(arm), "seed": seed}


def main(words: Sequence[str] | None = None) -> None:
    """Choose and measure the arms that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arms", nargs="*", choices=[*TRIES, []], help="arms (default: all)")
    parser.add_argument("--model", default="embedded", help="a Hub id, or a folder in its format")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), help="tasks (default: all)")
    parser.add_argument("--ship", action="store_true", help="write the lesson's adapters, and stop")
    asked = parser.parse_args(words)
    use(asked.model)
    if asked.ship:
        for arm in SHIPPED:
            ship(arm)
        return
    for times in (False, True):  # times are compared, so all are taken under the same conditions
        for arm in asked.arms or TRIES:
            wanted = [s for s in settings(arm) if s["task"] in (asked.tasks or TASKS)]
            record([s for s in wanted if (s["task"] == "timing") == times], TASKS)


if __name__ == "__main__":
    main()
