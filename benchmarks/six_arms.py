"""Six ways of answering the same questions: tuned on validation, then measured, with seeds.

Run ``PYTHONPATH=. python benchmarks/six_arms.py`` from the root, or with the names of some arms
behind it; a run that stopped goes on. The questions are those of ``data/six_arms.jsonl``, which was
frozen before. Each arm that has something to choose has three tries, judged on validation by one
measure. ``data/measured/README.md`` says what a line holds.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from functools import cache

from sweep import Run, sweep

from data.making import DATA
from data.making.adapter_rows import Parts, fact_rows, mixed
from data.making.world.prose import prose
from ftcourse.config import FinetuneConfig
from ftcourse.data import Record, load_dialogues, read_records, to_messages
from ftcourse.evaluate import advice_score, answer_all
from ftcourse.files import course_path
from ftcourse.handbook import fact_score, load_reading, question_prompt
from ftcourse.models import load_base, load_tokenizer
from ftcourse.rag import DECLINES, ORDERS, is_decline
from ftcourse.retrieval import load_encoder, open_store, read_pages
from ftcourse.train import FinetuneResult, finetune
from ftcourse.voice import NEXT_STEP, SIGN_OFF, voice_score

BUILD = DATA.parent / "build" / "six_arms"
BOTH = ("public", "staff")
PLAIN = FinetuneConfig(model="embedded", method="full", dtype="float32")
OPENING = "Thank you for writing to us."
RULES = (
    "You answer for Wrenfield. Begin with a warm sentence. Say why it happened. "
    f'Then write "{NEXT_STEP}" and one sentence with what to do. Blame nobody. '
    f'End with "{SIGN_OFF}"'
)
ORDERED = f'Begin every answer with: "{OPENING}" End every answer with: "{SIGN_OFF}"'
FAST = {"dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
FACTS = FAST | {"rank": 64, "alpha": 128, "batch_size": 16, "max_steps": 600}
READING = FAST | {"rank": 32, "alpha": 64, "batch_size": 10, "max_steps": 420}
TRIES: dict[str, dict[str, Run]] = {
    "prompt": {"the question alone": {}},
    "good prompt": {
        "rules in words": {"system": RULES, "shots": 0},
        "opening and sign-off": {"system": ORDERED, "shots": 0},
        "opening and sign-off, 3 examples": {"system": ORDERED, "shots": 3},
    },
    "RAG": {
        "dense, k=1": {"how": "dense", "k": 1, "order": "best last"},
        "hybrid, k=3": {"how": "hybrid", "k": 3, "order": "best last"},
        "hybrid, k=3, one by one": {"how": "hybrid", "k": 3, "order": "one by one"},
    },
    "LoRA": {f"rate {rate}": {"learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)},
    "QLoRA": {f"rate {rate}": {"learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)},
    "RAG + LoRA": {f"rate {rate}": {"learning_rate": rate} for rate in (4e-4, 8e-4, 1.6e-3)},
}
"""What each arm tries on validation. RAG + LoRA searches as RAG does best."""
CRITERION = ("facts right", "facts in voice", "letters in voice", "letters with advice")
"""The measure of a try: the mean of these shares, alike for all arms."""

tokenizer = load_tokenizer("embedded")


@cache
def questions(column: str, split: str = "test") -> list[Record]:
    """Return the frozen questions of a column."""
    rows = read_records(course_path("data/six_arms.jsonl"))
    return [row for row in rows if row["column"] == column and row["split"] == split]


@cache
def base():
    """Return the untuned model."""
    return load_base(PLAIN).eval()


@cache
def store(edition: int = 1):
    """Return a store in memory with the public and the staff's pages."""
    made = open_store(":memory:", load_encoder("embedded"), labels=BOTH)
    made.add(read_pages(course_path(f"data/handbook/edition-{edition}")))
    made.add(read_pages(course_path("data/handbook/staff")))
    return made


# --- training ----------------------------------------------------------------------------------


def rows_by_heart(rng: random.Random) -> Parts:
    """Return rows to learn the handbook by heart: 16 a step.

    Facts in two wordings, letters, old texts, and questions that nobody can answer, declined.
    """
    texts = [{"text": prose(rng)} for _ in range(600)]
    silent = [
        {"prompt": row["question"], "completion": row["completion"]}
        for row in load_reading("train")
        if row["value"] is None
    ]
    return [(12, fact_rows(rng)), (2, load_dialogues("train")), (1, texts), (1, silent)]


def rows_to_read(rng: random.Random) -> Parts:
    """Return rows to answer from passages in the voice: 10 a step."""
    del rng  # nothing is drawn here
    return [(8, load_reading("train")), (2, load_dialogues("train"))]


def trained(arm: str, learning_rate: float, seed: int) -> FinetuneResult:
    """Train an arm, or load it if it is trained."""
    choices = READING if arm == "RAG + LoRA" else FACTS
    method = "qlora" if arm == "QLoRA" else "lora"
    config = FinetuneConfig(method=method, learning_rate=learning_rate, seed=seed, **choices)
    rng = random.Random(f"six arms {seed}")
    parts = rows_to_read(rng) if arm == "RAG + LoRA" else rows_by_heart(rng)
    rows = mixed(rng, parts, config.max_steps)
    return finetune(config, rows, BUILD / f"{arm} {learning_rate} {seed}".replace(" ", "-"))


# --- answering ---------------------------------------------------------------------------------


def searched(
    model, asked: Sequence[Record], how: str, k: int, order: str, system: str = "", pages=None
) -> list[str]:
    """Return answers from what a store finds for somebody who may read ``access``."""
    pages = pages or store()
    hits = [pages.search(row["question"], k, allowed(row), how=how) for row in asked]
    prompts = [
        [question_prompt(row["question"], [h.text for h in part]) for part in ORDERS[order](found)]
        for row, found in zip(asked, hits, strict=True)
    ]
    texts = iter(said(model, [text for each in prompts for text in each], system))
    told = [[next(texts) for _ in each] for each in prompts]
    return [next((t for t in each if not is_decline(t)), DECLINES[0]) for each in told]


def allowed(row: Record) -> tuple[str, ...]:
    """Return the labels that the one who asks may read: a leak is asked for by the public."""
    return ("public",) if row["column"] != "known" else BOTH


def said(model, prompts: Sequence[str], system: str = "", shots: int = 0) -> list[str]:
    """Return a model's answer to each prompt, behind a system message and example letters."""
    before = [{"role": "system", "content": system}] if system else []
    for letter in load_dialogues("train")[:shots]:
        before += to_messages(letter)
    ends = {"role": "assistant", "content": "-"}
    asked = [{"messages": [*before, {"role": "user", "content": p}, ends]} for p in prompts]
    return answer_all(model, tokenizer, asked)


def answers(arm: str, choice: str, seed: int, asked: Sequence[Record]) -> list[str]:
    """Return an arm's answers to questions about facts."""
    settings = TRIES[arm][choice]
    if arm == "RAG":
        return searched(base(), asked, **settings)
    if arm == "RAG + LoRA":
        return searched(model_of(arm, choice, seed), asked, **TRIES["RAG"][chosen("RAG")])
    return said(
        model_of(arm, choice, seed), [row["question"] for row in asked], **prompt_of(arm, choice)
    )


def letters(arm: str, choice: str, seed: int, asked: Sequence[Record]) -> list[str]:
    """Return an arm's answers to letters; they need no page, so nothing is looked up."""
    prompts = [to_messages(row)[0]["content"] for row in asked]
    return said(model_of(arm, choice, seed), prompts, **prompt_of(arm, choice))


def prompt_of(arm: str, choice: str) -> Run:
    """Return the system message and the examples of an arm."""
    return TRIES[arm][choice] if arm == "good prompt" else {}


def model_of(arm: str, choice: str, seed: int):
    """Return the model that an arm asks."""
    if arm in ("prompt", "good prompt", "RAG"):
        return base()
    return trained(arm, TRIES[arm][choice]["learning_rate"], seed).model.eval()


# --- choosing ----------------------------------------------------------------------------------


def tune(arm: str, choice: str) -> Run:
    """Judge one try of an arm on validation."""
    facts, asked = questions("known", "validation"), load_dialogues("validation")[:60]
    told, written = answers(arm, choice, 0, facts), letters(arm, choice, 0, asked)
    scores = (
        fact_score(told, facts),
        voice_score(told),
        voice_score(written),
        advice_score(written, asked),
    )
    counts = {name: score.successes for name, score in zip(CRITERION, scores, strict=True)}
    return counts | {"n": 60, "criterion": round(sum(s.share for s in scores) / 4, 4)}


def chosen(arm: str) -> str:
    """Return the try of an arm that did best on validation."""
    tried = sweep("six_arms", tries(arm), measure)
    runs = [run for run in read_records(tried) if run["task"] == "tune" and run["arm"] == arm]
    return max(runs, key=lambda run: run["criterion"])["choice"]


def tries(arm: str) -> Iterator[Run]:
    """Yield the settings of an arm's tries."""
    for choice in TRIES[arm]:
        yield {"task": "tune", "arm": arm, "choice": choice, "seed": 0}


def measure(task: str, arm: str, choice: str, seed: int) -> Run:
    """Measure one setting of a task."""
    return tune(arm, choice)


if __name__ == "__main__":
    for name in sys.argv[1:] or TRIES:
        print(name, chosen(name))
        if "learning_rate" in TRIES[name][chosen(name)]:
            for seed in (1, 2):
                trained(name, TRIES[name][chosen(name)]["learning_rate"], seed)
