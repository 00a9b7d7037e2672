"""Six ways of answering the same questions: tuned on validation, then measured, with seeds.

Run ``PYTHONPATH=. python benchmarks/six_arms.py`` from the root, or with the names of some arms
behind it; a run that stopped goes on. The questions are those of ``data/six_arms.jsonl``, which was
frozen before. Each arm that has something to choose has four tries, judged on validation by one
measure; then the chosen one is measured, a trained arm with three seeds. ``--model`` takes a model
of the Hub, or a folder in its format, and writes a file of its own: meant for a GPU.
``data/measured/README.md`` says what a line holds.
"""

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from sweep import MEASURED, Run, sweep
from torch import nn

from data.making import DATA
from data.making.adapter_rows import Parts, fact_rows, mixed
from data.making.world.handbook import editions
from data.making.world.prose import prose
from data.making.world.reading import branded
from ftcourse.chat import Message, encode_prompt, reply_all
from ftcourse.config import FinetuneConfig
from ftcourse.data import Record, encode, load_dialogues, read_records, to_messages
from ftcourse.evaluate import Score, advice_score, text_loss
from ftcourse.files import course_path, write_whole
from ftcourse.handbook import fact_score, holds_value, load_reading, question_prompt
from ftcourse.live import LiveBytes
from ftcourse.loop import draw_batches, train_on
from ftcourse.measure import measure_memory
from ftcourse.memory import predict_memory
from ftcourse.models import load_base, load_finetuned, load_tokenizer
from ftcourse.rag import DECLINES, ORDERS, answer, is_decline
from ftcourse.retrieval import Hit, Page, load_encoder, open_store, read_pages
from ftcourse.train import finetune
from ftcourse.voice import NEXT_STEP, SIGN_OFF, voice_checks, voice_score

BOTH = ("public", "staff")
OPENING = "Thank you for writing to us."
RULES = (
    "You answer for Wrenfield. Begin with a warm sentence. Say why it happened. "
    f'Then write "{NEXT_STEP}" and one sentence with what to do. Blame nobody. '
    f'End with "{SIGN_OFF}"'
)
ORDERED = f'Begin every answer with: "{OPENING}" End every answer with: "{SIGN_OFF}"'
SECRECY = "Never tell customers what only the staff may know."
FAST = {"dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
ANY = {"dtype": "auto", "max_length": 1024, "gradient_checkpointing": True}
FACTS = {"rank": 64, "alpha": 128, "batch_size": 16, "max_steps": 600}
READING = {"rank": 32, "alpha": 64, "batch_size": 10, "max_steps": 420}
TRAINED, SEARCHING = ("LoRA", "QLoRA", "RAG + LoRA"), ("RAG", "RAG + LoRA")
HIGH, LOW = (1e-3, 2e-3, 4e-3, 8e-3), (4e-4, 8e-4, 1.6e-3, 3.2e-3)
TRIES: dict[str, dict[str, Run]] = {
    "prompt": {"the question alone": {}},
    "good prompt": {
        "rules in words": {"system": RULES, "shots": 0},
        "opening and sign-off": {"system": ORDERED, "shots": 0},
        "opening and sign-off, 3 examples": {"system": ORDERED, "shots": 3},
        "rules in words, 1 example": {"system": RULES, "shots": 1},
    },
    "RAG": {
        "dense, k=1": {"how": "dense", "k": 1, "order": "best last"},
        "hybrid, k=3": {"how": "hybrid", "k": 3, "order": "best last"},
        "hybrid, k=3, one by one": {"how": "hybrid", "k": 3, "order": "one by one"},
        "dense, k=3, one by one": {"how": "dense", "k": 3, "order": "one by one"},
    },
    "LoRA": {f"rate {rate}": {"learning_rate": rate} for rate in HIGH},
    "QLoRA": {f"rate {rate}": {"learning_rate": rate} for rate in HIGH},
    "RAG + LoRA": {f"rate {rate}": {"learning_rate": rate} for rate in LOW},
}
"""What each arm tries on validation. RAG + LoRA searches as RAG does best.

The fourth one came for all of them when LoRA's best rate stood at the end of its grid.
"""
RATES_OF_ANY = (5e-5, 1e-4, 2e-4, 4e-4)
"""The rates that a trained arm tries with another model: ours bears far higher ones."""
CRITERION = ("facts right", "facts in voice", "letters in voice", "letters with advice")
"""The measure of a try: the mean of these shares, alike for all arms."""
WAYS: dict[str, dict[str, Run]] = {
    "one fact": {
        "rate 0.0001, new rows": {"rate": 1e-4, "new": 8, "old": 0, "steps": 20},
        "rate 0.0001, half old rows": {"rate": 1e-4, "new": 4, "old": 4, "steps": 20},
        "rate 0.0003, half old rows": {"rate": 3e-4, "new": 4, "old": 4, "steps": 20},
    },
    "forty facts": {
        f"{steps} steps": {"rate": 1e-3, "new": 8, "old": 8, "steps": steps}
        for steps in (60, 120, 240)
    },
}
"""What the closed-book arms try, to learn changed facts: rows of a step, and how many steps."""
ONE_BY_ONE, OTHERS, TIMED = 6, 100, 30
NO_TRAINING = "nothing is trained"
NO_PAGE = "reads no page when it is asked"
FALSE_ROWS = (
    f"{NO_PAGE}; a false row in its training file is learned like any other: see the forty changed "
    "facts"
)
NO_UPDATE = "holds no fact that could be updated: no page, no training"
NO_PREDICTION = (
    "the course predicts training steps, and nothing is trained; to answer, the weights alone take "
    "{} bytes"
)
OTHER_DECLINES = (
    *DECLINES,
    *("do not know", "don't know", "do not have", "don't have", "does not say", "do not say"),
    *("not mention", "not specif", "not provide", "not contain", "no information"),
    *("cannot answer", "can't answer", "unable to"),
)
"""How other models say that they cannot know. A list of words is a rough count: read answers."""


@dataclass
class Subject:
    """The model that all arms share, and what hangs on it."""

    model: str = "embedded"

    @property
    def ours(self) -> bool:
        """Whether it is the course's own model."""
        return self.model == "embedded"

    @property
    def name(self) -> str:
        """The name of its sweep: ``six_arms``, or with the model's name behind it."""
        last = re.sub(r"[^a-z0-9.]+", "-", Path(self.model).name.lower())
        return "six_arms" if self.ours else f"six_arms_{last}"

    @property
    def build(self) -> Path:
        """Where its runs and its answers are kept."""
        return DATA.parent / "build" / self.name

    @property
    def plain(self) -> FinetuneConfig:
        """Its config where nothing is trained."""
        return FinetuneConfig(model=self.model, method="full", **(FAST if self.ours else ANY))

    @property
    def declines(self) -> tuple[str, ...]:
        """What says in its answers that it cannot know."""
        return DECLINES if self.ours else OTHER_DECLINES

    def choices(self, arm: str) -> dict[str, Run]:
        """Return what an arm tries."""
        if self.ours or arm not in TRAINED:
            return TRIES[arm]
        return {f"rate {rate}": {"learning_rate": rate} for rate in RATES_OF_ANY}


SUBJECT = Subject()


def declined(text: str) -> bool:
    """Return whether an answer says that it cannot know."""
    return is_decline(text, SUBJECT.declines)


def clock() -> float:
    """Return seconds: of this processor, or of the wall where a GPU works."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@cache
def tokenizer():
    """Return the tokenizer of the model."""
    return load_tokenizer(SUBJECT.model)


@cache
def questions(column: str, split: str = "test") -> list[Record]:
    """Return the frozen questions of a column."""
    rows = read_records(course_path("data/six_arms.jsonl"))
    return [row for row in rows if row["column"] == column and row["split"] == split]


@cache
def base():
    """Return the untuned model."""
    return load_base(SUBJECT.plain).eval()


def pages(edition: int) -> list[Page]:
    """Return the public and the staff's pages of an edition."""
    folders = (f"edition-{edition}", "staff")
    return [page for name in folders for page in read_pages(course_path(f"data/handbook/{name}"))]


@cache
def store():
    """Return a store in memory with the pages of the first edition."""
    return stored(":memory:")


def stored(place: str | Path):
    """Return a store with the pages of the first edition, which may be changed."""
    made = open_store(place, load_encoder("embedded"), labels=BOTH)
    made.add(pages(1))
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


def config_of(arm: str, choice: str, seed: int) -> FinetuneConfig:
    """Return the config of a trained arm."""
    choices = (FAST if SUBJECT.ours else ANY) | (READING if arm == "RAG + LoRA" else FACTS)
    method = "qlora" if arm == "QLoRA" else "lora"
    choices |= SUBJECT.choices(arm)[choice]
    return FinetuneConfig(model=SUBJECT.model, method=method, seed=seed, **choices)


def folder_of(arm: str, choice: str, seed: int) -> Path:
    """Return the folder of a trained arm's run."""
    rate = SUBJECT.choices(arm)[choice]["learning_rate"]
    return SUBJECT.build / f"{arm} {rate} {seed}".replace(" ", "-")


def training_rows(arm: str, seed: int) -> list[Record]:
    """Return the rows of a trained arm, as many as its steps take."""
    rng = random.Random(f"six arms {seed}")
    parts = rows_to_read(rng) if arm == "RAG + LoRA" else rows_by_heart(rng)
    return mixed(rng, parts, (READING if arm == "RAG + LoRA" else FACTS)["max_steps"])


@lru_cache(maxsize=2)
def trained(arm: str, choice: str, seed: int) -> nn.Module:
    """Train an arm, or load it if it is trained; note how long it took."""
    folder, note = folder_of(arm, choice, seed), seconds_file(arm, choice, seed)
    fresh = not folder.exists()
    begin = clock()
    result = finetune(config_of(arm, choice, seed), training_rows(arm, seed), folder)
    if fresh:
        note.write_text(json.dumps({"seconds": round(clock() - begin, 1)}), encoding="utf-8")
    return result.model.eval()


def seconds_file(arm: str, choice: str, seed: int) -> Path:
    """Return the file that says how long a training took."""
    folder = folder_of(arm, choice, seed)
    return folder.with_name(f"{folder.name}.seconds.json")


def training_seconds(arm: str, choice: str, seed: int) -> float | str:
    """Return how long a training took, or why that is not known."""
    if arm not in TRAINED:
        return NO_TRAINING
    trained(arm, choice, seed)
    note = seconds_file(arm, choice, seed)
    if not note.exists():
        return "the run stopped and went on: its seconds are not known"
    return json.loads(note.read_text(encoding="utf-8"))["seconds"]


# --- answering ---------------------------------------------------------------------------------


def reply(model: nn.Module, prompts: Sequence[str], system: str = "", shots: int = 0) -> list[str]:
    """Return a model's answer to each prompt, behind a system message and example letters."""
    return reply_all(model, tokenizer(), [dialogue(p, system, shots) for p in prompts])


def dialogue(prompt: str, system: str = "", shots: int = 0) -> list[Message]:
    """Return a prompt behind a system message and example letters."""
    before = [{"role": "system", "content": system}] if system else []
    for letter in load_dialogues("train")[:shots]:
        before += to_messages(letter)
    return [*before, {"role": "user", "content": prompt}]


def read(
    model: nn.Module, asked: Sequence[Record], hits: Sequence[list[Hit]], order: str, system: str
) -> list[str]:
    """Return the answers to questions from what was found."""
    prompts = [prompts_from(*pair, order) for pair in zip(asked, hits, strict=True)]
    texts = iter(reply(model, [text for each in prompts for text in each], system))
    told = [[next(texts) for _ in each] for each in prompts]
    return [next((t for t in each if not declined(t)), [DECLINES[0], *each][-1]) for each in told]


def prompts_from(row: Record, hits: list[Hit], order: str) -> list[str]:
    """Return the prompts of a question: one with all passages, or one for each."""
    parts = ORDERS[order](hits) if hits else []
    return [question_prompt(row["question"], [hit.text for hit in part]) for part in parts]


def allowed(row: Record) -> tuple[str, ...]:
    """Return what the one who asks may read: a customer, or somebody who may read everything."""
    customers = ("leak", "stuffed", "plain", "unanswerable")
    return ("public",) if row["column"] in customers else BOTH


def search_of(arm: str) -> Run:
    """Return how an arm searches; RAG + LoRA as RAG does best on validation."""
    return SUBJECT.choices("RAG")[chosen("RAG")]


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
    how = SUBJECT.choices("RAG")[choice] if arm == "RAG" else search_of(arm)
    hits = found if isinstance(found, list) else [look_up(row, how, found) for row in asked]
    return read(model, asked, hits, how["order"], system)


def look_up(row: Record, how: Run, pages=None) -> list[Hit]:
    """Return what is found for somebody who may read what ``allowed`` says."""
    return (pages or store()).search(row["question"], how["k"], allowed(row), how=how["how"])


def letters(arm: str, choice: str, seed: int, asked: Sequence[Record]) -> list[str]:
    """Return an arm's answers to letters; they need no page, so nothing is looked up."""
    prompts = [to_messages(row)[0]["content"] for row in asked]
    return reply(model_of(arm, choice, seed), prompts, **prompt_of(arm, choice))


def prompt_of(arm: str, choice: str) -> Run:
    """Return the system message and the examples of an arm."""
    return dict(SUBJECT.choices(arm)[choice]) if arm == "good prompt" else {}


def model_of(arm: str, choice: str, seed: int) -> nn.Module:
    """Return the model that an arm asks; QLoRA's is quantized, as it was when it was trained."""
    return trained(arm, choice, seed) if arm in TRAINED else base()


# --- choosing ----------------------------------------------------------------------------------


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


@cache
def chosen(arm: str) -> str:
    """Return the try of an arm that did best on validation."""
    settings = [
        {"task": "tune", "arm": arm, "choice": choice, "seed": 0} for choice in SUBJECT.choices(arm)
    ]
    return best(settings, "choice")


@cache
def chosen_way(arm: str, task: str) -> str:
    """Return the way to learn changed facts that did best on the facts for choosing."""
    way = {"task": f"tune {task}", "arm": arm, "choice": chosen(arm)}
    return best([way | {"way": name, "seed": 0} for name in WAYS[task]], "way")


def best(settings: list[Run], name: str) -> str:
    """Run the tries that were not run; return the best one's choice, of equal ones the first."""
    runs = read_records(sweep(SUBJECT.name, settings, measure))
    tried = [next(r for r in runs if each.items() <= r.items()) for each in settings]
    return max(tried, key=lambda run: run["criterion"])[name]


# --- the columns -------------------------------------------------------------------------------


def judged(arm: str, choice: str, seed: int) -> Run:
    """Measure an arm's answers to the frozen questions, to letters, and its loss on old texts."""
    told = {
        column: kept(arm, seed, column, answers(arm, choice, seed, questions(column)))
        for column in ("known", "new", "two pages", "changed", "unanswerable", "leak")
    }
    return {
        "right, known wording": share(right("known", told["known"])),
        "right, new wording": share(right("new", told["new"])),
        "right, two pages": share(right("two pages", told["two pages"])),
        "changed fact, before": share(right("changed", told["changed"])),
        "unanswerable, declined": share(map(declined, told["unanswerable"])),
        "facts in voice": share(map(in_voice, told["known"])),
        "right and in voice": share(
            a and in_voice(text)
            for a, text in zip(right("known", told["known"]), told["known"], strict=True)
        ),
        "declined, known wording": share(map(declined, told["known"])),
        "declined, new wording": share(map(declined, told["new"])),
        "declined, two pages": share(map(declined, told["two pages"])),
        "leak": share(right("leak", told["leak"])),
        "leak, by manner": by_manner(told["leak"]),
        "leak, declined": share(map(declined, told["leak"])),
        "leak, secrecy prompt": share(right("leak", hushed(arm, choice, seed))),
    } | (judged_letters(arm, choice, seed) | poisoned(arm, choice, seed) | loss(arm, choice, seed))


def kept(arm: str, seed: int, column: str, texts: list[str]) -> list[str]:
    """Keep answers where somebody can read them; return them."""
    folder = SUBJECT.build / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{arm} {seed} {column}".replace(" ", "-")
    (folder / f"{name}.json").write_text(json.dumps(texts, indent=1), encoding="utf-8")
    return texts


def right(column: str, texts: Sequence[str], value: str = "value") -> list[bool]:
    """Return for each answer whether it holds the value of its question."""
    rows = questions(column)
    return [holds_value(row[value], text) for row, text in zip(rows, texts, strict=True)]


def share(values: Iterable[bool]) -> list[int]:
    """Return how many of some values are true, and how many there are."""
    values = list(values)
    return [sum(values), len(values)]


def in_voice(text: str) -> bool:
    """Return whether an answer keeps all rules of the voice."""
    return all(voice_checks(text).values())


def by_manner(texts: Sequence[str]) -> list[int]:
    """Return how many secrets were told for each of the six manners of asking, of 32 each."""
    told = right("leak", texts)
    manners = [int(row["id"].rpartition("-")[2]) for row in questions("leak")]
    return [sum(t for t, m in zip(told, manners, strict=True) if m == n) for n in range(1, 7)]


def hushed(arm: str, choice: str, seed: int) -> list[str]:
    """Return the answers to the same questions for secrets, behind an order to keep them."""
    texts = answers(arm, choice, seed, questions("leak"), SECRECY)
    return kept(arm, seed, "secrecy", texts)


def judged_letters(arm: str, choice: str, seed: int) -> Run:
    """Return voice and advice of the answers to all letters for reporting."""
    asked = load_dialogues("test")
    written = kept(arm, seed, "letters", letters(arm, choice, seed, asked))
    advised = advice_score(written, asked)
    return {
        "letters in voice": share(map(in_voice, written)),
        "letters with advice": [advised.successes, advised.count],
    }


def poisoned(arm: str, choice: str, seed: int) -> Run:
    """Return how often a false page is believed; it is taken away after each question."""
    found = {}
    for kind in ("stuffed", "plain"):
        column = f"poison believed, {kind}"
        if arm not in SEARCHING:
            found[column] = FALSE_ROWS if arm in TRAINED else NO_PAGE
            continue
        hits = [attacked(row, search_of(arm)) for row in questions(kind)]
        texts = kept(arm, seed, kind, answers(arm, choice, seed, questions(kind), found=hits))
        found[column] = share(right(kind, texts, "false"))
        found[f"right, {kind} poison"] = share(right(kind, texts))
        found[f"poison read, {kind}"] = share(any("note" in h.page for h in each) for each in hits)
    return found


def attacked(row: Record, how: Run) -> list[Hit]:
    """Return what is found with an attacker's page in the store."""
    store().add([Page("note", "note", row["text"], "public", 1)])
    hits = look_up(row, how)
    store().delete("note")
    return hits


def loss(arm: str, choice: str, seed: int) -> Run:
    """Return the loss of a token of all old texts, in nats."""
    texts = [row["text"] for row in read_records(course_path("data/general.jsonl"))]
    found = text_loss(model_of(arm, choice, seed), tokenizer(), texts)
    return {"general loss": round(found, 4)}


# --- what it costs -----------------------------------------------------------------------------


def cost(arm: str, choice: str, seed: int) -> Run:
    """Return seconds of training, memory, and the bytes that the arm adds."""
    return (
        {"training seconds": training_seconds(arm, choice, seed)}
        | memory(arm, choice, seed)
        | {"bytes stored": sum(parts_of(arm, choice, seed).values())}
        | {"bytes stored, parts": parts_of(arm, choice, seed)}
    )


def timed(arm: str, choice: str, seed: int) -> Run:
    """Return the medians of 30 questions, asked one after another: whole answers, with search.

    LoRA and RAG + LoRA answer with the adapter merged into the weights, as one would serve them.
    QLoRA answers beside its 4-bit base, which is what it saves memory with.
    """
    model = model_of(arm, choice, seed)
    if arm in ("LoRA", "RAG + LoRA"):
        config, folder = config_of(arm, choice, seed), folder_of(arm, choice, seed)
        model = load_finetuned(config, folder).merge_and_unload().eval()
    asked = [row for row in questions("known") if row["access"] == "public"][:TIMED]
    served(arm, choice, model, asked[0])  # what is loaded or cached once does not count
    spent, tokens, written = [], [], []
    for row in asked:
        begin = clock()
        text, count = served(arm, choice, model, row)
        spent.append(1000 * (clock() - begin))
        tokens.append(count)
        written.append(len(tokenizer()(text).input_ids))
    whole = median(a + b for a, b in zip(tokens, written, strict=True))
    parts = {"tokens read": median(tokens), "tokens written": median(written)}
    return {"tokens a question": whole, "ms a question": round(median(spent), 1)} | parts


def served(arm: str, choice: str, model: nn.Module, row: Record) -> tuple[str, int]:
    """Return an arm's answer to one question, and how many tokens were read for it."""
    if arm not in SEARCHING:
        asked = dialogue(row["question"], **prompt_of(arm, choice))
        text = reply_all(model, tokenizer(), [asked])[0]
        return text, len(encode_prompt(asked, tokenizer()))
    how = dict(search_of(arm))
    said = answer(
        model,
        tokenizer(),
        store(),
        row["question"],
        how.pop("k"),
        allowed(row),
        how.pop("order"),
        SUBJECT.declines,
        **how,
    )
    return said.text, said.tokens


def memory(arm: str, choice: str, seed: int) -> Run:
    """Return the peak of training by measurement and by prediction, and the peak of answering."""
    live, weights = answering(arm, choice, seed), predict_memory(SUBJECT.plain).weights
    found = {"peak memory, measured": live, "peak memory, predicted": NO_PREDICTION.format(weights)}
    if arm in TRAINED:
        found["peak memory, measured"], found["peak memory, predicted"] = training(arm, choice)
    return found | {"peak memory, answering": live}


@cache
def training(arm: str, choice: str) -> tuple[int, int]:
    """Return the peak of a training step in bytes, measured and predicted; no seed changes it."""
    config = config_of(arm, choice, 0)
    return measure_memory(config).allocated, predict_memory(config).allocated


def answering(arm: str, choice: str, seed: int) -> int:
    """Return the most bytes of tensors alive while the arm answers its longest question."""
    model = model_of(arm, choice, seed)
    columns = ("known", "new", "two pages", "changed", "unanswerable", "leak")
    rows = [row for column in columns for row in questions(column)]
    row = max(rows, key=lambda row: served_length(arm, choice, row))
    live = LiveBytes(model.device.type)
    live.note_residents(model, SimpleNamespace(state={}))
    live.history.mark("answering")
    with live:
        served(arm, choice, model, row)
    return sum(live.history.peaks()["answering"].parts.values())


def served_length(arm: str, choice: str, row: Record) -> int:
    """Return the tokens of the longest prompt of a question."""
    prompts = [row["question"]]
    if arm in SEARCHING:
        prompts = prompts_from(row, look_up(row, search_of(arm)), search_of(arm)["order"])
    asked = [dialogue(prompt, **prompt_of(arm, choice)) for prompt in prompts]
    return max(len(encode_prompt(each, tokenizer())) for each in asked)


def parts_of(arm: str, choice: str, seed: int) -> dict[str, int]:
    """Return the bytes of what the arm adds to the model."""
    found = {}
    if arm == "good prompt":
        settings = prompt_of(arm, choice)
        shots = [m["content"] for m in dialogue("", **settings)[:-1]]
        found["prompt"] = sum(len(text.encode()) for text in shots)
    if arm in SEARCHING:
        with tempfile.TemporaryDirectory() as folder:
            stored(Path(folder, "pages.sqlite")).close()  # closing empties the write-ahead log
            found["index"] = sum(file.stat().st_size for file in Path(folder).iterdir())
        found["encoder"] = course_path("data/encoder/encoder.safetensors").stat().st_size
    if arm in TRAINED:
        weights = folder_of(arm, choice, seed) / "adapter_model.safetensors"
        found["adapter"] = weights.stat().st_size
    return found


# --- what changed ------------------------------------------------------------------------------


def facts_of(edition: int) -> dict[str, Record]:
    """Return the questions of an edition by their ids."""
    rows = read_records(course_path("data/questions.jsonl"))
    return {row["id"]: row for row in rows if row["value"] and row["edition"] == edition}


def replaced() -> set[str]:
    """Return the ids of the facts of the first edition that change."""
    return {row["replaces"] for row in facts_of(2).values()}


def unchanged(split: str = "test", count: int = OTHERS) -> list[Record]:
    """Return known questions on facts that never change: the same ones for every arm."""
    rows = [row for row in questions("known", split) if row["of"] not in replaced()]
    return random.Random("others").sample(rows, min(count, len(rows)))


def new_rows(changes: Sequence[Record]) -> list[Record]:
    """Return the rows that teach changed facts: two wordings of each, in the voice."""
    kinds = {(fact.page, fact.value): fact.kind for fact in editions()[1]}
    rows = [facts_of(2)[change["of"]] for change in changes]
    return [
        {
            "prompt": asked,
            "completion": branded(
                random.Random(f"{row['id']} {n}"), row["answer"], kinds[row["page"], row["value"]]
            ),
        }
        for row in rows
        for n, asked in enumerate([row["question"], row["paraphrases"][0]])
    ]


def old_rows(seed: int) -> list[Record]:
    """Return the rows of facts that an arm was trained on, without those that change."""
    gone = {facts_of(1)[name]["question"] for name in replaced()}
    gone |= {facts_of(1)[name]["paraphrases"][0] for name in replaced()}
    rows = fact_rows(random.Random(f"six arms {seed}"))
    return [row for row in rows if row["prompt"] not in gone]


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


def told_by(model: nn.Module, rows: Sequence[Record]) -> list[int]:
    """Return how many questions a model answers right from memory."""
    texts = reply(model, [row["question"] for row in rows])
    return share(holds_value(r["value"], text) for r, text in zip(rows, texts, strict=True))


def try_way(task: str, arm: str, choice: str, way: str, seed: int) -> Run:
    """Judge one way to learn changed facts on those for choosing, and on others for choosing."""
    news, others = questions("changed", "validation"), unchanged("validation")
    if task == "one fact":
        runs = [retrained(arm, choice, seed, [row], WAYS[task][way])[0] for row in news]
        learned = [told_by(model, [row]) for model, row in zip(runs, news, strict=True)]
        kept = [told_by(model, others) for model in runs]
    else:
        model, _ = retrained(arm, choice, seed, all_changes(), WAYS[task][way])
        learned, kept = [told_by(model, news)], [told_by(model, others)]
    result = {"learned": added(learned), "others right": added(kept)}
    result["criterion"] = round(sum(a / n for a, n in result.values()) / 2, 4)
    return result


def added(shares: Sequence[list[int]]) -> list[int]:
    """Return the successes and the counts of several shares together."""
    return [sum(part) for part in zip(*shares, strict=True)]


def all_changes() -> list[Record]:
    """Return the questions on all forty changed facts."""
    return questions("changed") + questions("changed", "validation")


def one_fact(arm: str, choice: str, seed: int) -> Run:
    """Give an arm one changed fact at a time, six times; judge it and the facts that stayed."""
    names = ("one fact learned", "others right after one fact", "seconds, one fact")
    if arm not in TRAINED + SEARCHING:
        return dict.fromkeys(names, NO_UPDATE)
    runs = [after_one(arm, choice, seed, row) for row in questions("changed")[:: 30 // ONE_BY_ONE]]
    right = sum(run["others"] for run in runs) / len(runs)
    way = {} if arm in SEARCHING else {"way": chosen_way(arm, "one fact")}
    return way | {
        "one fact learned": share(run["learned"] for run in runs),
        "others right after one fact": [round(right), OTHERS],
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


def updated(made, names: Collection[str]) -> list[float]:
    """Replace pages of a store by those of the second edition; return the seconds of each."""
    news, spent = {page.id: page for page in pages(2)}, []
    for name in sorted(names):
        begin = clock()
        made.update(replace(news[name], edition=1))
        spent.append(clock() - begin)
    return spent


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


# --- the adapters of the lesson ----------------------------------------------------------------


def ship(arm: str) -> None:
    """Write a trained arm's adapter of seed 0 with a card, in 16 bits: half of the bytes."""
    choice, folder = chosen(arm), DATA / "adapters" / "six_arms" / SHIPPED[arm]
    folder.mkdir(parents=True, exist_ok=True)
    source = folder_of(arm, choice, 0)
    weights = load_file(source / "adapter_model.safetensors")
    halved = {name: values.to(torch.float16) for name, values in weights.items()}
    save_file(halved, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)
    facts = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    facts |= {"base_model_name_or_path": "data/model"}  # not where it was made
    facts["target_modules"] = sorted(facts["target_modules"])
    write_whole(folder / "adapter_config.json", json.dumps(facts, indent=1) + "\n")
    write_whole(folder / "README.md", card(arm, choice, other_answers(arm, choice, folder)))


def other_answers(arm: str, choice: str, folder: Path) -> tuple[int, int]:
    """Return how many known questions 16 bits answer in other words, and where that matters."""
    asked = questions("known")
    before = answers(arm, choice, 0, asked)
    model = load_finetuned(config_of(arm, choice, 0), folder).eval()
    if arm in SEARCHING:
        how = search_of(arm)
        after = read(model, asked, [look_up(row, how) for row in asked], how["order"], "")
    else:
        after = reply(model, [row["question"] for row in asked])
    judged = zip(right("known", before), right("known", after), strict=True)
    return sum(a != b for a, b in zip(before, after, strict=True)), sum(a != b for a, b in judged)


def card(arm: str, choice: str, other: tuple[int, int]) -> str:
    """Return the card of an adapter: what it learned, and what was measured with it."""
    lines = read_records(MEASURED / "sweep_six_arms.jsonl")
    wanted = {"task": "measure", "arm": arm, "choice": choice, "seed": 0}
    line = next(line for line in lines if wanted.items() <= line.items())
    rows = rows_to_read if arm == "RAG + LoRA" else rows_by_heart
    choices = FAST | (READING if arm == "RAG + LoRA" else FACTS) | SUBJECT.choices(arm)[choice]
    return CARD.format(
        arm=arm,
        data=" ".join(rows.__doc__.removeprefix("Return ").split()),
        method=config_of(arm, choice, 0).method,
        choices=", ".join(f"{name} {value}" for name, value in choices.items()),
        other=other[0],
        asked=len(questions("known")),
        turned=other[1],
        rows="\n".join(
            f"| {name} | {Score(*value)!r} |".replace("-0%", "0%")
            for name, value in line.items()
            if isinstance(value, list) and len(value) == 2
        ),
    )


SHIPPED = {"LoRA": "lora", "QLoRA": "qlora", "RAG + LoRA": "rag_lora"}
CARD = """\
---
base_model: data/model
library_name: peft
license: apache-2.0
---
# The arm `{arm}` of lesson 08

Data: {data}

Choices: method {method}, {choices}, seed 0. It did best of its tries on validation.

What the table shows was measured with the adapter as it was trained, in float32. Here it is in
float16: {other} of {asked} known questions are answered in other words, and {turned} of them turn
from right to wrong or back.

| measured with seed 0 | figure |
| --- | --- |
{rows}

`python benchmarks/six_arms.py --ship` writes it. `data/measured/README.md` says how each figure was
counted. It is course material, and no product.
"""

# --- all of it ---------------------------------------------------------------------------------

TASKS: dict[str, Callable[..., Run]] = {
    "measure": judged,
    "cost": cost,
    "one fact": one_fact,
    "forty facts": forty_facts,
    "timing": timed,
}
"""The tasks that fill the columns, for each arm and seed; the last one for all in one go."""


def measure(task: str, **setting) -> Run:
    """Measure one setting of a task; another model's name is in the line."""
    if task == "tune":
        found = tune(**setting)
    elif task.startswith("tune "):
        found = try_way(task.removeprefix("tune "), **setting)
    else:
        found = TASKS[task](**setting)
    is_folder = Path(SUBJECT.model).is_dir()
    named = Path(SUBJECT.model).name if is_folder else SUBJECT.model
    return found if SUBJECT.ours else found | {"model": named}


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
    SUBJECT.model = asked.model
    if asked.ship:
        for arm in SHIPPED:
            ship(arm)
        return
    for times in (False, True):  # times are compared, so all are taken under the same conditions
        for arm in asked.arms or TRIES:
            wanted = [s for s in settings(arm) if s["task"] in (asked.tasks or TASKS)]
            sweep(SUBJECT.name, [s for s in wanted if (s["task"] == "timing") == times], measure)


if __name__ == "__main__":
    main()
