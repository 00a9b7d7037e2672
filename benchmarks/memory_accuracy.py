"""How close the arithmetic and the simulation come: signed errors against what somebody measured.

    python benchmarks/memory_accuracy.py [--reserved]

Four judges: runs on a Tesla T4 that fitcheck published, runs on an A100 that litgpt published
(data/measured/README.md), live bytes of real steps of small models of each family on this CPU, and
the real code of large models on fake tensors. Nothing is fitted to any of them. ``--reserved`` adds
what PyTorch's allocator took on the T4, for which all layers are simulated, in ten seconds a run.
"""

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.measure import measure_memory
from ftcourse.memory import (
    MemoryBreakdown,
    predict_memory,
    predict_step,
)
from ftcourse.memory.published import predict_litgpt, step_of
from ftcourse.memory.records import Record, recorded_runs
from ftcourse.memory.step import Step
from ftcourse.shape.families import FAMILIES
from ftcourse.simulate import simulate_memory, simulate_step

Verb = Callable[[Step], MemoryBreakdown]

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

MORE = [
    {"bits": 8},
    {"bits": 8, "dtype": "bfloat16"},
    {"attention": "eager"},
    {"method": "full", "optimizer": "adamw_torch"},
    {"method": "full", "optimizer": "adamw_8bit"},
    {"method": "full", "optimizer": "adafactor"},
    {"method": "full", "optimizer": "adafactor", "dtype": "bfloat16"},
    {"method": "lora", "optimizer": "paged_adamw_32bit"},
    {"method": "lora", "optimizer": "sgd"},
]


@dataclass(frozen=True)
class Comparison:
    """One run: who judges, what it was, how far off we are, and which term is to blame."""

    judge: str
    model: str
    config: FinetuneConfig
    error: float
    """Ours / measured - 1."""
    blame: str
    """The part that differs the most; where only a total was measured, our peak's moment."""

    @property
    def group(self) -> tuple[str, ...]:
        """What the table has one line for."""
        config = self.config
        method = f"{config.method} {config.bits}" if config.method == "qlora" else config.method
        checkpointing = "checkpointing" if config.gradient_checkpointing else "-"
        return self.judge, method, checkpointing, config.optimizer

    def __str__(self) -> str:
        """Return one line for the list of the worst."""
        config = self.config
        run = f"{config.batch_size} x {config.max_length}, {config.attention}, {config.dtype}"
        return f"{self.error:+8.2%}  {', '.join(self.group)}; {self.model}, {run}: {self.blame}"


def compare(
    judge: str, model: str, config: FinetuneConfig, ours: MemoryBreakdown, judged: MemoryBreakdown
) -> Comparison:
    """Return the comparison of two breakdowns of one run."""
    differences = {part: abs(ours.parts[part] - judged.parts[part]) for part in ours.parts}
    blame = max(differences, key=differences.__getitem__)
    return Comparison(judge, model, config, ours.allocated / judged.allocated - 1, blame)


def published_steps(by: str) -> Iterator[tuple[Record, Step]]:
    """Yield each run that somebody published and its step, in its authors' own loop."""
    for run in recorded_runs():
        if run.by == by:
            with tempfile.TemporaryDirectory() as folder:  # the simulation reads config.json
                (Path(folder) / "config.json").write_text(json.dumps(run.shape), encoding="utf-8")
                yield run, replace(step_of(run), config=replace(run.config, model=folder))


def fitcheck_runs(verb: Verb) -> Iterator[Comparison]:
    """Yield the error of prediction or simulation for each run on a T4."""
    for run, step in published_steps("fitcheck"):
        ours = verb(step)
        error = ours.allocated / run.allocated - 1
        yield Comparison(f"T4, {verb.__name__}", run.config.model, step.config, error, ours.moment)


def litgpt_runs() -> Iterator[Comparison]:
    """Yield the error of the arithmetic for each run on an A100, without checkpointing."""
    for run, step in published_steps("litgpt"):
        ours = predict_litgpt(step)
        error = ours.allocated / run.allocated - 1
        yield Comparison("A100, litgpt", run.config.model, step.config, error, ours.moment)


def reserved_runs() -> Iterator[Comparison]:
    """Yield the error of what PyTorch's allocator took in each run on a T4, by simulation."""
    for run, step in published_steps("fitcheck"):
        ours = simulate_step(step, reserved=True)
        error = ours.reserved / run.reserved - 1
        model = run.config.model
        yield Comparison("T4, reserved", model, step.config, error, "gaps between blocks")


def small_runs() -> Iterator[Comparison]:
    """Yield the errors of prediction and simulation against real steps on this CPU."""
    choices = {
        "method": ["full", "lora", "qlora"],
        "gradient_checkpointing": [True, False],
        "max_length": [32, 128, 512],
        "dtype": ["float32", "bfloat16"],
        "loss": ["full", "chunked"],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
        products = itertools.product(*choices.values())
        runs = [dict(zip(choices, values, strict=True)) for values in products]
        for run in [
            *runs,
            *({**more, "gradient_checkpointing": on} for more in MORE for on in (True, False)),
        ]:
            config = FinetuneConfig(model=folder, **run)
            measured = measure_memory(config)
            for verb in (predict_memory, simulate_memory):
                judge = f"CPU live bytes, {verb.__name__}"
                yield compare(judge, "small", config, verb(config), measured)


def families() -> Iterator[Comparison]:
    """Yield the errors of prediction and simulation for a small model of each family."""
    own_words = {
        "gpt2": {"n_embd": 256, "n_layer": 6, "n_head": 8, "n_inner": 768},
        "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 192},
    }
    methods, checkpointing = ("full", "lora", "qlora"), (True, False)
    for family, method, checkpoints in itertools.product(FAMILIES, methods, checkpointing):
        own = own_words.get(family, {})
        values = SMALL | {"model_type": family, "pad_token_id": 0, "head_dim": 32} | own
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(values), encoding="utf-8")
            config = FinetuneConfig(
                model=folder,
                method=method,
                gradient_checkpointing=checkpoints,
                dtype="bfloat16",
                attention="eager" if family == "gemma2" else "sdpa",
                max_length=128,
            )
            measured = measure_memory(config)
            for verb in (predict_memory, simulate_memory):
                kind = "mixtures" if "num_experts_per_tok" in values else "families"
                judge = f"CPU live bytes, {kind}, {verb.__name__}"
                yield compare(judge, family, config, verb(config), measured)


def large_models() -> Iterator[Comparison]:
    """Yield the errors of prediction against simulation for models that need a real card."""
    models = ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b")
    methods, checkpointing, lengths = ("full", "lora", "qlora"), (True, False), (512, 2048)
    for name, *values in itertools.product(
        ("T4", "A100 80GB"), models, methods, checkpointing, lengths
    ):
        names = ("model", "method", "gradient_checkpointing", "max_length")
        config = FinetuneConfig(**dict(zip(names, values, strict=True)))
        predicted, simulated = (
            verb(config, CARDS[name]) for verb in (predict_memory, simulate_memory)
        )
        yield compare(
            f"{name}, predict against simulate", config.model, config, predicted, simulated
        )


def report(rows: list[Comparison]) -> str:
    """Return the errors of each group and the ten worst runs."""
    head = f"{'':<80}{'runs':>6}{'lowest':>9}{'highest':>9}{'median size':>13}"
    lines = [head]
    for group in dict.fromkeys([row.group[:1] for row in rows] + [row.group for row in rows]):
        errors = [row.error for row in rows if row.group[: len(group)] == group]
        size = statistics.median(map(abs, errors))
        spread = f"{min(errors):>+9.2%}{max(errors):>+9.2%}{size:>13.2%}"
        lines.append(f"{', '.join(group):<80}{len(errors):>6}{spread}")
    worst = sorted(rows, key=lambda row: -abs(row.error))[:10]
    return "\n".join([*lines, "", "the ten worst, and the term to blame", *map(str, worst)])


def main() -> None:
    """Compare with each judge and print the report."""
    published = [*fitcheck_runs(predict_step), *fitcheck_runs(simulate_step), *litgpt_runs()]
    reserved = [*reserved_runs()] if "--reserved" in sys.argv else []
    print(report([*published, *reserved, *small_runs(), *families(), *large_models()]))


if __name__ == "__main__":
    main()
