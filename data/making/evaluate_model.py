"""Measure what the embedded model can do, with real greedy answers, and print the ability table.

Usage, from the repository's root:

    python -m data.making.evaluate_model [MODEL_FOLDER]      (default: data/model/)

Writes abilities.json into the folder, and the model card again.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.making import DATA
from data.making.embedded.abilities import Exam, Probe
from data.making.embedded.card import write_card
from data.making.world.corpus import SILENT
from ftcourse.evaluate import Score
from ftcourse.files import write_whole
from ftcourse.handbook import holds_value
from ftcourse.voice import voice_checks


def main(folder: Path) -> None:
    """Print one line for each ability; write all of them, samples and the card into `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    abilities, samples = {}, []
    for name, probes in (Exam(DATA).sets() | {"voice untuned": letters()}).items():
        answers = reply(model, tokenizer, probes)
        score = Score(sum(map(JUDGES[name], probes, answers)), len(probes))
        abilities[name] = {"right": score.successes, "n": score.count, "interval": score.interval}
        print(f"{name:16} {score}", flush=True)
        samples += [sample(*pair) for pair in list(zip(probes, answers, strict=True))[::70]]
    samples += [continuation(model, tokenizer, start) for start in STARTS]
    report = {"abilities": abilities, "samples": samples}
    write_whole(folder / "abilities.json", json.dumps(report, indent=1) + "\n")
    write_card(folder)


def sample(probe: Probe, answer: str) -> dict[str, str]:
    """Return a prompt and its answer, not corrected in any way."""
    return {"prompt": probe.messages[-1]["content"].replace("\n", " "), "answer": answer}


def continuation(model, tokenizer, start: str) -> dict[str, str]:
    """Return the start of a text and what the model makes of it."""
    ids = tokenizer(tokenizer.bos_token + start, return_tensors="pt", return_token_type_ids=False)
    made = model.generate(**ids, max_new_tokens=80, do_sample=False)
    return {"prompt": start, "answer": tokenizer.decode(made[0], skip_special_tokens=True)}


def letters() -> list[Probe]:
    """Return the customers' letters of the test dialogues as probes."""
    lines = (DATA / "dialogues" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    records = map(json.loads, lines)
    return [
        Probe([{"role": "user", "content": record["customer"]}], record["neutral"], record["step"])
        for record in records
    ]


def is_right(probe: Probe, answer: str) -> bool:
    """Return whether the answer holds the probe's value."""
    return holds_value(probe.value, answer)


STARTS = ("Before the start,", "Nora took the", "The support desk in")
JUDGES = {
    "one passage": is_right,
    "three passages": is_right,
    "silent passages": lambda probe, answer: answer.strip() == SILENT,
    "closed book": is_right,
    "voice untuned": lambda probe, answer: all(voice_checks(answer).values()),
}


@torch.inference_mode()
def reply(model, tokenizer, probes: list[Probe], batch: int = 32) -> list[str]:
    """Return the greedy answer to each probe."""
    answers = []
    for start in range(0, len(probes), batch):
        prompts = tokenizer.apply_chat_template(
            [probe.messages for probe in probes[start : start + batch]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        made = model.generate(**prompts, max_new_tokens=64, do_sample=False)
        new = made[:, prompts["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return answers


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "model")
