"""Measure what tuning does to the embedded model: the voice, what it forgets, facts it learns.

Usage, from the repository's root:

    python -m data.making.evaluate_tuning [MODEL_FOLDER]      (default: data/model/)

Writes tuning.json into the folder, and the model card again.
"""

import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.making import DATA
from data.making.embedded.card import write_card
from data.making.world.prose import prose
from ftcourse.config import FinetuneConfig
from ftcourse.data import load_dialogues, read_records
from ftcourse.evaluate import Score, advice_score, answer_all, text_loss
from ftcourse.files import write_whole
from ftcourse.handbook import fact_score, load_questions
from ftcourse.train import FinetuneResult, finetune
from ftcourse.voice import voice_score

VOICE = {
    "method": "lora",
    "rank": 8,
    "alpha": 16,
    "batch_size": 16,
    "learning_rate": 4e-3,
    "max_steps": 120,
}
FACTS = {
    "method": "lora",
    "rank": 64,
    "alpha": 128,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "max_steps": 600,
}
REMINDERS = 800  # old texts among 1,600 dialogues
TEXTS = [record["text"] for record in read_records(DATA / "general.jsonl")]


def main(folder: Path) -> None:
    """Tune three times, print the results, and write them into `folder`."""
    torch.set_num_threads(2)
    rng = random.Random("old texts")
    old_texts = [{"text": prose(rng)} for _ in range(REMINDERS)]
    report = {
        "voice": measure_voice(folder, []),
        "voice, reminded": measure_voice(folder, old_texts),
        "facts": measure_facts(folder),
    }
    write_whole(folder / "tuning.json", json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    write_card(folder)


def measure_voice(folder: Path, old_texts: list[dict]) -> dict:
    """Tune on the brand's dialogues; score voice and advice on letters it has not seen.

    Old texts among the dialogues remind the model of what it could do before.
    """
    letters = load_dialogues("test")
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    neutral = answer_all(base, tokenizer, letters)
    run = tune(folder, load_dialogues("train") + old_texts, VOICE)
    answers = answer_all(run.model, tokenizer, letters)
    return summary(run, base) | {
        "voice before": as_json(voice_score(neutral)),
        "voice after": as_json(voice_score(answers)),
        "advice before": as_json(advice_score(neutral, letters)),
        "advice after": as_json(advice_score(answers, letters)),
    }


def measure_facts(folder: Path) -> dict:
    """Teach every fact by two questions; ask each in words that were not in the training."""
    asked, reworded, exam = (load_questions(passages=False, wording=n) for n in range(3))
    lessons = [record for pair in zip(asked, reworded, strict=True) for record in pair]
    run = tune(folder, lessons, FACTS)
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    return summary(run, base) | {
        "recalled, as asked in training": as_json(recall(run, asked)),
        "recalled, paraphrased": as_json(recall(run, exam)),
    }


def tune(folder: Path, records: list[dict], choices: dict) -> FinetuneResult:
    """Tune once, with the course's own finetune."""
    records = random.Random(0).sample(records, len(records))
    fast = {"max_length": 256, "gradient_checkpointing": False}
    return finetune(FinetuneConfig(model=str(folder), **fast, **choices), records)


def recall(run: FinetuneResult, records: list[dict]) -> Score:
    """Return the share of questions whose answer holds the value."""
    answers = answer_all(run.model, run.tokenizer, records)
    return fact_score(answers, records)


def summary(run: FinetuneResult, base: torch.nn.Module) -> dict:
    """Return the choices, the seconds, and the loss on ordinary text before and after."""
    before, after = (text_loss(model, run.tokenizer, TEXTS) for model in (base, run.model))
    config = run.config
    return {
        "rank": config.rank,
        "learning rate": config.learning_rate,
        "steps": config.max_steps,
        "seconds": run.seconds,
        "general loss before": round(before, 4),
        "general loss after": round(after, 4),
    }


def as_json(score: Score) -> dict:
    """Return a score as the report holds it."""
    return {"right": score.successes, "n": score.count, "interval": score.interval}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "model")
