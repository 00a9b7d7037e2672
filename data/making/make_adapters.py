"""Make the shipped adapters: train, measure, and write data/adapters/<name>/.

    python -m data.making.make_adapters [NAME ...]      (default: all, and the base's figures)

Run it from the repository's root. A killed run continues when you give the same command again; the
checkpoints are in build/adapters/.
"""

import json
import random
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from data.making import DATA, adapter_rows
from data.making.adapter_rows import mixed
from data.making.adapter_scores import MEASURES, Judge, Scores
from ftcourse.config import FinetuneConfig
from ftcourse.evaluate import Score
from ftcourse.files import write_whole
from ftcourse.handbook import load_reading
from ftcourse.models import load_base, load_tokenizer
from ftcourse.train import FinetuneResult, finetune

BUILD, TARGET = DATA.parent / "build" / "adapters", DATA / "adapters"
FAST = {"method": "lora", "dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
ORDERS = {"rank": 16, "alpha": 32, "batch_size": 8, "learning_rate": 3e-3, "max_steps": 160}
MIXED = {"rank": 16, "alpha": 32, "batch_size": 12, "learning_rate": 1.5e-3, "max_steps": 300}
SLOW = {"rank": 32, "alpha": 64, "batch_size": 10, "learning_rate": 8e-4, "max_steps": 420}
FACTS = {"rank": 64, "alpha": 128, "batch_size": 16, "learning_rate": 2e-3, "max_steps": 800}
RUNS = {
    "facts": [(FACTS, {})],
    "reading": [(MIXED, {"answers": 8, "letters": 4}), (SLOW, {"answers": 8, "letters": 2})],
    "obeys": [(ORDERS, {})],
    "ignores": [(ORDERS, {})],
}
"""For each adapter, the runs that were tried: choices of the config, and shares of its rows."""
CHOSEN_BY, WEIGHTS = "validation: right and in the voice", "adapter_model.safetensors"


def tune(name: str, number: int) -> FinetuneResult:
    """Train one of an adapter's runs, or load it if it is trained."""
    choices, shares = RUNS[name][number]
    config = FinetuneConfig(**FAST, **choices)
    rng = random.Random(f"adapter {name}")
    rows = mixed(rng, getattr(adapter_rows, name)(rng, **shares), config.max_steps)
    return finetune(config, rows, BUILD / f"{name}-{number}")


def choose(name: str) -> tuple[FinetuneResult, list[Scores]]:
    """Return the run that does best on validation, and what each run did there."""
    runs = [tune(name, number) for number in range(len(RUNS[name]))]
    if len(runs) == 1:
        return runs[0], []
    rows = load_reading("validation")
    tried = [judge(run).read("validation", rows) for run in runs]
    best = max(range(len(runs)), key=lambda n: tried[n][CHOSEN_BY].share)
    return runs[best], tried


def judge(run: FinetuneResult) -> Judge:
    """Return a run's model as one that answers."""
    return Judge(run.model.eval(), run.tokenizer)


def make(name: str) -> None:
    """Train one adapter, measure it, and write its folder."""
    run, tried = choose(name)
    folder = TARGET / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.output_dir / WEIGHTS, folder / WEIGHTS)
    config = json.loads((run.output_dir / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "data/model"  # not where it was made
    config["target_modules"] = sorted(config["target_modules"])
    write_json(folder / "adapter_config.json", config)
    figures = {
        "shares": RUNS[name][int(run.output_dir.name.rpartition("-")[2])][1],
        "config": changed(run.config),
        "parameters": run.trained_parameters,
        "seconds": round(run.seconds),
        "tried": [as_json(scores) for scores in tried],
        "scores": as_json(MEASURES[name](judge(run))),
    }
    write_json(folder / "figures.json", figures)
    write_whole(folder / "README.md", card(name, figures))


def measure_base() -> None:
    """Measure what the base model does with the same questions, for comparison."""
    model = load_base(FinetuneConfig(method="full", dtype="float32")).eval()
    scores = as_json(MEASURES["base"](Judge(model, load_tokenizer("embedded"))))
    write_json(TARGET / "base.json", {"scores": scores})


def changed(config: FinetuneConfig) -> dict:
    """Return the choices of a config that are not the default."""
    default = asdict(FinetuneConfig())
    return {name: value for name, value in asdict(config).items() if value != default[name]}


def as_json(scores: Scores) -> dict:
    """Return scores as a file holds them: successes and count, or a loss."""
    return {
        name: [score.successes, score.count] if isinstance(score, Score) else round(score, 3)
        for name, score in scores.items()
    }


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file, and its folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n")


def card(name: str, figures: dict) -> str:
    """Return an adapter's card."""
    data = getattr(adapter_rows, name).__doc__.splitlines()[0].removeprefix("Return ")
    choices = ", ".join(f"{key} {value}" for key, value in figures["config"].items())
    rows = "".join(f"| {key} | {in_words(value)} |\n" for key, value in figures["scores"].items())
    tried = "".join(
        f"- run {number}: {in_words(scores[CHOSEN_BY])}\n"
        for number, scores in enumerate(figures["tried"], 1)
    )
    chosen = f"Runs tried, chosen by the share right and in the voice on validation:\n\n{tried}\n"
    return CARD.format(
        name=name,
        data=data,
        choices=choices,
        seconds=figures["seconds"],
        parameters=f"{figures['parameters']:,}",
        chosen=chosen if tried else "",
        rows=rows,
    )


def in_words(value: float | list[int]) -> str:
    """Return a figure as the card states it."""
    words = repr(Score(*value)) if isinstance(value, list) else f"{value:.3f}"
    return words.replace("-0%", "0%")  # a rounded lower end


CARD = """\
---
base_model: data/model
library_name: peft
license: apache-2.0
---
# The adapter `{name}` of the embedded model

Data: {data}

Choices: {choices}. Trained parameters: {parameters}, saved in float32. Training took {seconds} s on
one thread of a CPU that other work shared.

{chosen}| measured | figure |
| --- | --- |
{rows}
`python -m data.making.make_adapters {name}` makes it and measures it; the same figures are in
`figures.json`, as successes and count. Load it with the course, as a run with this rank, or with
`peft.PeftModel.from_pretrained(base, folder)`. It is course material, and no product.
"""

if __name__ == "__main__":
    torch.set_num_threads(1)
    for asked in sys.argv[1:] or [*RUNS, "base"]:
        measure_base() if asked == "base" else make(asked)
