"""How close the arithmetic comes: signed errors against runs that somebody measured.

    python benchmarks/memory_accuracy.py

Three judges: runs on a Tesla T4 that fitcheck published (data/measured/README.md), live bytes of
real steps of small models on this CPU, and the real code of large models on fake tensors. Nothing
is fitted to any of them.
"""

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.measure import measure_memory
from ftcourse.memory import MemoryBreakdown, predict_memory, predict_step
from ftcourse.resources import course_path
from ftcourse.shape import ModelShape
from ftcourse.simulate import simulate_memory, simulate_step
from ftcourse.step import Step

Error = tuple[str, str, float]
"""Group, description, signed relative error."""

SMALL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 2048,
    "tie_word_embeddings": True,
}


def published_steps() -> Iterator[tuple[dict, Step]]:
    """Yield each published T4 run with the step that it took.

    fitcheck trains in a plain loop: no autocast, and the model's output lives through the backward
    pass. Its QLoRA runs cast norms, embeddings and head to fp32 and do not double-quantize.
    """
    for line in (course_path("data/measured") / "published_t4.jsonl").read_text().splitlines():
        run = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(run["shape"]))
            config = FinetuneConfig(
                model=folder,
                method=run["method"],
                rank=run["rank"],
                target_modules=run["target_modules"],
                batch_size=run["batch_size"],
                max_length=run["max_length"],
                attention=run["attention"],
                dtype="float16",
                upcast=run["method"] == "qlora",
                double_quant=False,
                optimizer="adamw_torch",
            )
            shape = ModelShape.from_config(run["shape"])
            yield run, Step(config, shape, CARDS["T4"], autocast=False, holds_logits=True)


def published_runs(verb: Callable[[Step], MemoryBreakdown]) -> Iterator[Error]:
    """Yield the error of prediction or simulation for each published T4 run."""
    for run, step in published_steps():
        group = f"T4, {run['method']}, {run['attention']}, {verb.__name__}"
        name = f"{run['model']} batch {run['batch_size']} length {run['max_length']}"
        yield group, name, verb(step).allocated / (run["allocated_mib"] * 2**20) - 1


def small_runs() -> Iterator[Error]:
    """Yield the errors of prediction and simulation against real steps on this CPU."""
    choices = {
        "method": ["full", "lora", "qlora"],
        "gradient_checkpointing": [True, False],
        "max_length": [32, 128, 512],
        "dtype": ["float32", "bfloat16"],
        "loss": ["full", "chunked"],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SMALL))
        for values in itertools.product(*choices.values()):
            run = dict(zip(choices, values, strict=True))
            config = FinetuneConfig(model=folder, batch_size=4, **run)
            measured = measure_memory(config).allocated
            name = ", ".join(map(str, values))
            for verb in (predict_memory, simulate_memory):
                group = f"CPU live bytes, {verb.__name__}"
                yield group, name, verb(config).allocated / measured - 1


def large_models() -> Iterator[Error]:
    """Yield the errors of prediction against simulation for models that need a real card."""
    models = ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b")
    methods, checkpointing, lengths = ("full", "lora", "qlora"), (True, False), (512, 2048)
    for card, *values in itertools.product(
        ("T4", "A100 80GB"), models, methods, checkpointing, lengths
    ):
        names = ("model", "method", "gradient_checkpointing", "max_length")
        config = FinetuneConfig(**dict(zip(names, values, strict=True)))
        simulated = simulate_memory(config, CARDS[card]).allocated
        error = predict_memory(config, CARDS[card]).allocated / simulated - 1
        yield f"{card}, predict against simulate", ", ".join(map(str, values)), error


def main() -> None:
    """Print the median and the worst error of each group, and the ten worst runs of all."""
    published = [*published_runs(predict_step), *published_runs(simulate_step)]
    errors = [*published, *small_runs(), *large_models()]
    print(f"{'against':<40}{'runs':>6}{'median':>9}{'worst':>9}")
    for group in dict.fromkeys(group for group, _, _ in errors):
        sizes = [abs(error) for g, _, error in errors if g == group]
        print(f"{group:<40}{len(sizes):>6}{statistics.median(sizes):>9.2%}{max(sizes):>9.2%}")
    print("\nthe ten worst")
    for group, name, error in sorted(errors, key=lambda e: -abs(e[2]))[:10]:
        print(f"{error:+8.2%}  {group}: {name}")


if __name__ == "__main__":
    main()
