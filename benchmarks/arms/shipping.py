"""The adapters of the lesson: in 16 bits, each with a card."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sweep import MEASURED

from arms.answering import look_up, read, reply
from arms.choosing import answers, chosen, search_of
from arms.questions import questions, right
from arms.subject import FAST, subject
from arms.training import FACTS, READING, config_of, folder_of, rows_by_heart, rows_to_read
from arms.tries import SEARCHING
from data.making import DATA
from ftcourse.data import read_records
from ftcourse.evaluate import Score
from ftcourse.files import write_whole
from ftcourse.models import load_finetuned

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
    choices = FAST | (READING if arm == "RAG + LoRA" else FACTS) | subject().choices(arm)[choice]
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
