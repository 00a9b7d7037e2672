"""Measure prompts, mixtures of training rows, too few rows, and what one changed fact costs.

Run ``PYTHONPATH=. python benchmarks/sweep_finetune.py`` from the root, or with the names of some
tasks behind it; a run that stopped goes on. Adapters are ours, which equal peft's bit for bit; the
changed facts continue the shipped adapter ``data/adapters/facts`` in peft itself.
``data/measured/README.md`` says what a line holds.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import torch
from sweep import Run, sweep
from torch import nn
from transformers import TrainerCallback

from data.making import DATA
from data.making.adapter_rows import fact_rows
from data.making.embedded.abilities import Exam, Probe
from data.making.world.prose import prose
from data.making.world.reading import branded
from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues, read_records, to_messages
from ftcourse.evaluate import advice_score, answer_all, held_out_loss, text_loss
from ftcourse.files import course_path
from ftcourse.handbook import holds_value, load_questions, load_reading
from ftcourse.loop import draw_batches, train_on
from ftcourse.lora import inject_lora
from ftcourse.models import load_base, load_finetuned, load_tokenizer
from ftcourse.train import finetune
from ftcourse.voice import NEXT_STEP, SIGN_OFF, voice_checks, voice_score

tokenizer = load_tokenizer("embedded")
SEEDS = (0, 1, 2)
STEPS, RATE = 120, 3e-3
KINDS = ("letters", "neutral", "branded", "general")
MIXTURES = (
    (12, 0, 0, 0),
    (8, 0, 0, 4),
    (8, 4, 0, 0),
    (4, 8, 0, 0),
    (11, 0, 1, 0),
    (8, 0, 4, 0),
    (4, 0, 8, 0),
    (4, 0, 6, 2),
)
SHOWN = ((12, 0, 0, 0), (8, 0, 0, 4), (4, 8, 0, 0), (4, 0, 8, 0), (4, 0, 6, 2))
OPENING = "Thank you for writing to us."
RULES = (
    "You answer for Wrenfield. Begin with a warm sentence. Say why it happened. "
    'Then write "Your next step:" and one sentence with what to do. Blame nobody. '
    f'End with "{SIGN_OFF}"'
)
BEGIN = f'Begin every answer with: "{OPENING}"'
END = f'End every answer with: "{SIGN_OFF}"'
PROMPTS = {  # a system message, and how many letters with their answers stand before the letter
    "none": ("", 0),
    "rules in words": (RULES, 0),
    "begin": (BEGIN, 0),
    "end": (END, 0),
    "begin and end": (f"{BEGIN} {END}", 0),
    "begin with step, end": (f'{BEGIN[:-1]} {NEXT_STEP}" {END}', 0),
    "end with step": (f'End every answer with: "{NEXT_STEP} write to us. {SIGN_OFF}"', 0),
    "1 example": ("", 1),
    "3 examples": ("", 3),
    "begin and end, 3 examples": (f"{BEGIN} {END}", 3),
}
CHANGES, OLD = ("q240", "q241", "q250"), 32
CHANGE_STEPS, CHANGE_ROWS, CHANGE_RATES = 20, 8, (1e-4, 3e-4, 1e-3)
FEW, JUDGES, FEW_STEPS = 16, 24, (30, 60, 90, 180, 300)


def base_model() -> nn.Module:
    """Return the embedded model in float32."""
    return load_base(FinetuneConfig(model="embedded", method="full", dtype="float32"))


def prompts(prompt: str, split: str) -> Run:
    """Ask the untuned model with a prompt; count the answers that keep each rule."""
    system, shots = PROMPTS[prompt]
    before = [{"role": "system", "content": system}] if system else []
    for record in load_dialogues("train")[:shots]:
        before += to_messages(record)
    letters = load_dialogues(split)
    asked = [{"messages": before + to_messages(letter)} for letter in letters]
    answers = answer_all(base_model(), tokenizer, asked)
    kept = [voice_checks(answer) for answer in answers]
    rules = {rule: sum(each[rule] for each in kept) for rule in kept[0]}
    found = {"all_rules": voice_score(answers).successes, "n": len(letters)}
    found["begins with the order"] = sum(answer.startswith(OPENING) for answer in answers)
    return rules | found | {"advice": advice_score(answers, letters).successes}


def rows_of(kind: str) -> list[Run]:
    """Return the training rows of a kind."""
    if kind == "letters":
        return load_dialogues("train")
    if kind == "general":
        rng = random.Random("old texts")
        return [{"text": prose(rng)} for _ in range(800)]
    return load_reading("train", {"neutral": "neutral", "branded": "brand"}[kind])


@cache
def examples_of(kind: str) -> list:
    """Return the training rows of a kind as tokens."""
    return encode(rows_of(kind), tokenizer, 512)


def mixed(shares: Sequence[int], steps: int, seed: int) -> list:
    """Return rows for so many steps: of each kind its share, every row before any comes again."""
    found = []
    for kind, share in zip(KINDS, shares, strict=True):
        if share:
            pool, wanted = list(examples_of(kind)), share * steps
            random.Random(f"{kind} {seed}").shuffle(pool)
            found += [pool[number % len(pool)] for number in range(wanted)]
    return found


def mixture(rank: int, learning_rate: float, steps: int, seed: int, **shares: int) -> Run:
    """Train on a mixture of rows; judge the letters, the answers about pages, and old texts."""
    model = base_model()
    torch.manual_seed(seed)
    if steps:
        inject_lora(model, "all-linear", rank, 2 * rank)
        rows = mixed([shares[kind] for kind in KINDS], steps, seed)
        train_on(model, draw_batches(rows, sum(shares.values()), steps, seed), learning_rate)
    return judge_letters(model) | judge_reading(model)


def judge_letters(model: nn.Module) -> Run:
    """Return the voice on letters for choosing, and voice and advice on letters for reporting."""
    found = {}
    for split, size in (("validation", 100), ("test", 200)):
        letters = load_dialogues(split)[:size]
        answers = answer_all(model, tokenizer, letters)
        found[f"{split}: letters in voice"] = voice_score(answers).successes / size
        found[f"{split}: letters with advice"] = advice_score(answers, letters).successes / size
    return found


@cache
def exam() -> dict[str, list[Probe]]:
    """Return the questions about the handbook's pages."""
    return Exam(DATA).sets()


def judge_reading(model: nn.Module) -> Run:
    """Return right, in voice and both for answers about pages; silent pages; general loss.

    Of the 239 questions every second one is for choosing, the others are for reporting.
    """
    found = {}
    halves = {"validation": slice(0, None, 2), "test": slice(1, None, 2)}
    for name, pages in (("one passage", 1), ("three passages", 3)):
        for split, half in halves.items():
            if (split, pages) != ("validation", 3):
                judged = judge_answers(model, exam()[name][half])
                found |= {f"{split}: {what}, {pages} p": value for what, value in judged.items()}
    silent = exam()["silent passages"][-40:]
    answers = answer_all(model, tokenizer, [as_record(probe) for probe in silent])
    found["test: declines"] = sum(map(declines, answers)) / len(answers)
    texts = [row["text"] for row in read_records(course_path("data/general.jsonl"))]
    for split, part in (("validation", texts[100:200]), ("test", texts[:100])):
        found[f"{split}: general loss"] = round(text_loss(model, tokenizer, part), 4)
    return found


def declines(answer: str) -> bool:
    """Return whether an answer says that the passages do not hold the fact."""
    return any(words in answer for words in ("do not say", "silent", "do not know"))


def as_record(probe: Probe) -> Run:
    """Return a question of the ability table as a record."""
    messages = [*probe.messages, {"role": "assistant", "content": probe.answer}]
    return {"messages": messages, "value": probe.value}


def judge_answers(model: nn.Module, probes: list[Probe]) -> Run:
    """Return the shares of answers that hold the value, that keep the voice, and that do both."""
    answers = answer_all(model, tokenizer, [as_record(probe) for probe in probes])
    right = [
        holds_value(probe.value, answer) for probe, answer in zip(probes, answers, strict=True)
    ]
    voiced = [all(voice_checks(answer).values()) for answer in answers]
    both = [a and b for a, b in zip(right, voiced, strict=True)]
    named = {"right": right, "in voice": voiced, "both": both}
    return {name: round(sum(each) / len(each), 4) for name, each in named.items()}


def changed(fact: str, voice: str, rehearsed: int, learning_rate: float, seed: int) -> Run:
    """Teach the facts adapter one new value in 20 steps; judge it and the facts that stayed."""
    torch.manual_seed(seed)
    model, new = facts_model(), question(fact)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    asks = [new["question"], *new["paraphrases"]]
    branded_answer = branded(random.Random(fact), new["answer"], "drone")
    spoken = branded_answer if voice == "brand" else new["answer"]
    lessons = [{"prompt": ask, "completion": spoken} for ask in asks[:2]]
    rows = fact_rows(random.Random("old"))  # as the adapter saw them, in two wordings
    old = [
        row
        for row, fact in zip(rows, closed(0) + closed(1), strict=True)
        if fact["page"] != new["page"]
    ]
    kept = random.Random(f"old {seed}").sample(old, rehearsed)
    batches = change_batches(lessons, kept, seed)
    train_on(model, batches, learning_rate)
    answer = answer_all(model, tokenizer, [{"prompt": asks[2], "completion": "."}])[0]
    return {
        "others before": recalled_before(fact),
        "learned": holds_value(new["value"], answer),
        "others": recall(model, others_than(fact)),
        "answer": answer,
    }


def facts_model() -> nn.Module:
    """Return the shipped adapter that knows the handbook by heart."""
    config = FinetuneConfig(model="embedded", method="lora", dtype="float32")
    return load_finetuned(config, course_path("data/adapters/facts"))


def others_than(fact: str) -> list[Run]:
    """Return every second question in the third wording, without the one that changed."""
    new = question(fact)
    gone = question(new["replaces"])["value"], new["page"]
    return [r for r in closed(2)[::2] if (r["value"], r["page"]) != gone]


@cache
def recalled_before(fact: str) -> float:
    """Return the share of the other facts that are right before the change."""
    return recall(facts_model(), others_than(fact))


def question(name: str) -> Run:
    """Return a question of either edition by its id."""
    rows = read_records(course_path("data/questions.jsonl"))
    return next(row for row in rows if row["id"] == name)


def change_batches(lessons: list[Run], kept: list[Run], seed: int) -> list:
    """Return 20 batches of 8 rows: the new fact alone, or half new and half old."""
    new = encode(lessons, tokenizer, 512)
    if not kept:
        return draw_batches(new, CHANGE_ROWS, CHANGE_STEPS, seed)
    old = encode(kept, tokenizer, 512)
    half = CHANGE_STEPS * CHANGE_ROWS // 2
    rows = [pool[number % len(pool)] for pool in (new, old) for number in range(half)]
    return draw_batches(rows, CHANGE_ROWS, CHANGE_STEPS, seed)


@cache
def closed(wording: int) -> list[Run]:
    """Return the questions without pages in one of three wordings."""
    return load_questions(passages=False, wording=wording)


def recall(model: nn.Module, records: list[Run]) -> float:
    """Return the share of facts that are right from memory."""
    answers = answer_all(model, tokenizer, records)
    right = [holds_value(r["value"], a) for r, a in zip(records, answers, strict=True)]
    return round(sum(right) / len(right), 4)


def too_few(steps: int, seed: int) -> Run:
    """Return how a run on too few letters was judged after so many of its steps."""
    return few_run(seed)[steps]


@cache
def few_run(seed: int) -> dict[int, Run]:
    """Train on 16 letters to the end; judge it on the way by 24 others, and by 100 more."""
    chosen = {"rank": 16, "alpha": 32, "batch_size": 4, "max_steps": FEW_STEPS[-1]}
    chosen |= {"dtype": "float32", "gradient_checkpointing": False, "max_length": 512}
    config = FinetuneConfig(method="lora", learning_rate=2 * RATE, seed=seed, **chosen)
    judge = JudgeOnTheWay()
    finetune(config, load_dialogues("train")[:FEW], callbacks=[judge])
    return judge.found


class JudgeOnTheWay(TrainerCallback):
    """Judges a model that is being trained, after some of its steps."""

    def __init__(self) -> None:
        """Begin with nothing found."""
        self.found: dict[int, Run] = {}

    def on_step_end(self, args, state, control, model, **_):
        """Keep the loss of the judges, and voice and advice on 100 letters that are not them."""
        if state.global_step in FEW_STEPS:
            letters = load_dialogues("validation")[: JUDGES + 100]
            answers = answer_all(model, tokenizer, letters[JUDGES:])
            self.found[state.global_step] = {
                "held-out loss": round(held_out_loss(model, tokenizer, letters[:JUDGES]), 4),
                "letters in voice": voice_score(answers).successes / 100,
                "letters with advice": advice_score(answers, letters[JUDGES:]).successes / 100,
            }
            model.train()


def all_few() -> Iterator[Run]:
    """Yield the checkpoints of three runs on too few rows."""
    for seed, steps in product(SEEDS, FEW_STEPS):
        yield {"task": "too few", "steps": steps, "seed": seed}


def all_prompts() -> Iterator[Run]:
    """Yield each prompt on the letters for choosing and on those for reporting."""
    for split, prompt in product(("validation", "test"), PROMPTS):
        yield {"task": "prompts", "prompt": prompt, "split": split}


def setting(shares: Sequence[int], seed: int, **other) -> Run:
    """Return a setting of the mixtures."""
    fixed = {"task": "mixtures"} | dict(zip(KINDS, shares, strict=True))
    return fixed | {"rank": 16, "learning_rate": RATE, "steps": STEPS} | other | {"seed": seed}


def mixtures() -> Iterator[Run]:
    """Yield the untuned model, and the mixtures with three seeds, those of the lesson first.

    With seed 0 also other rates, and letters alone with fewer steps: is it the rate or the time
    that takes the reading away?
    """
    yield setting(MIXTURES[0], 0, steps=0)
    for seed in SEEDS:  # as many letters as in 120 steps with eight of them; and as many updates
        yield setting(MIXTURES[0], seed, steps=80)
        yield setting((8, 0, 0, 0), seed)
    for shown in (True, False):
        for seed, shares in product(SEEDS, MIXTURES):
            if (shares in SHOWN) == shown:
                yield setting(shares, seed)
    yield setting(MIXTURES[0], 0, steps=20)
    for rate in (1.5e-3, 6e-3):
        yield setting(MIXTURES[0], 0, learning_rate=rate)


def changes() -> Iterator[Run]:
    """Yield three changed facts at three rates with three seeds, without old facts and with 32.

    With seed 0 the new answer is also taught in the neutral voice, which the adapter never used.
    """
    for seed, rate, fact in product(SEEDS, CHANGE_RATES, CHANGES):
        for voice, rehearsed in (("brand", 0), ("brand", OLD), ("neutral", 0)):
            if voice == "brand" or seed == 0:
                run = {"task": "changes", "fact": fact, "voice": voice, "rehearsed": rehearsed}
                yield run | {"learning_rate": rate, "seed": seed}


def measure(task: str, **setting) -> Run:
    """Measure one setting of a task."""
    tasks = {"prompts": prompts, "mixtures": mixture, "changes": changed}
    tasks["too few"] = too_few
    return tasks[task](**setting)


TASKS = {"prompts": all_prompts, "mixtures": mixtures, "changes": changes}
TASKS["too few"] = all_few

if __name__ == "__main__":
    for name in sys.argv[1:] or TASKS:
        sweep("finetune", TASKS[name](), measure)
