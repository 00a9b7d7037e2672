"""How close the arithmetic and the simulation come: signed errors against what somebody measured.

    python benchmarks/memory_accuracy.py

Four judges: runs on a Tesla T4 that fitcheck published, runs on an A100 that litgpt published
(data/measured/README.md), live bytes of real steps of small models on this CPU, and the real code
of large models on fake tensors. Nothing is fitted to any of them.
"""

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ftcourse.activations import layer_activations
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.measure import measure_memory
from ftcourse.memory import (
    CUBLAS_WORKSPACE,
    MemoryBreakdown,
    predict_memory,
    predict_step,
)
from ftcourse.parameters import quantized_bytes, weight_bytes
from ftcourse.resources import course_path
from ftcourse.shape import ModelShape
from ftcourse.simulate import simulate_memory, simulate_step
from ftcourse.step import Step

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


def published_steps(name: str, card: str, unsaid: dict, **loop: bool) -> Iterator[tuple]:
    """Yield each run of a published file and the step that it took, in its authors' own loop."""
    for line in (course_path("data/measured") / name).read_text().splitlines():
        run = json.loads(line)
        known = {
            field.name: run[field.name] for field in fields(FinetuneConfig) if field.name in run
        }
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(run["shape"]))
            config = FinetuneConfig(**known | unsaid | {"model": folder})
            yield run, Step(config, ModelShape.from_config(run["shape"]), CARDS[card], **loop)


def fitcheck_runs(verb: Verb) -> Iterator[Comparison]:
    """Yield the error of prediction or simulation for each run on a T4.

    fitcheck trains in a plain loop: no autocast, and the model's output lives through the backward
    pass. Its QLoRA runs cast norms, embeddings and head to fp32 and do not double-quantize.
    """
    unsaid = {"dtype": "float16", "double_quant": False, "optimizer": "adamw_torch"}
    loop = {"autocast": False, "holds_logits": True}
    for run, step in published_steps("published_t4.jsonl", "T4", unsaid, **loop):
        if run["method"] == "qlora":
            step = replace(step, config=replace(step.config, upcast=True))
        ours, measured = verb(step), run["allocated_mib"] * 2**20
        error = ours.allocated / measured - 1
        judge = f"T4, {verb.__name__}"
        yield Comparison(judge, run["model"], step.config, error, ours.moment)


def litgpt_runs() -> Iterator[Comparison]:
    """Yield the error of the arithmetic for each run on an A100, without checkpointing."""
    unsaid = {
        "dtype": "bfloat16",
        "adapter_dtype": "bfloat16",
        "gradient_checkpointing": False,
        "optimizer": "adamw_torch",
    }
    for run, step in published_steps("published_a100.jsonl", "A100 40GB", unsaid, autocast=False):
        ours = predict_litgpt(step)
        error = ours.allocated / (run["allocated_gb"] * 1e9) - 1
        yield Comparison("A100, litgpt", run["model"], step.config, error, ours.moment)


def predict_litgpt(step: Step) -> MemoryBreakdown:
    """Return the bytes of litgpt's first step, which gets the longest sequences.

    Where it differs from the Trainer's: it has its own layers (``litgpt_layer``); Lightning turns
    the logits to fp32, and they live beside their log-probabilities while the loss goes backward in
    pieces of 128 tokens; bitsandbytes quantizes the head too, and dequantizes it in the fp16 of the
    checkpoint and again in bf16. There are no gradients and no optimizer states yet.
    """
    shape, tokens = step.shape, step.tokens
    layers = shape.num_hidden_layers * tokens * (layer_activations(step) + litgpt_layer(step))
    words, head = shape.vocab_size, shape.vocab_size * shape.hidden_size
    activations, weights = layers + 8 * words * tokens, weight_bytes(step)
    if step.config.method == "lora":
        return _litgpt_breakdown(weights, activations + 8 * words * 128, 0)
    weights += quantized_bytes(head, words, step.config) - 2 * head
    return _litgpt_breakdown(weights, activations, (2 + 2) * head)


def litgpt_layer(step: Step) -> int:
    """Return the bytes for a token that a layer of litgpt keeps beside those of transformers.

    One module gives queries, keys and values, and the values keep all three; ``index_copy`` spreads
    the adapter's queries and values over them and keeps them; the adapter drops inputs at random
    and keeps which. bitsandbytes 0.41 also kept the inputs of each quantized module.
    """
    shape = step.shape
    keys = shape.num_key_value_heads * shape.head_dim
    together = shape.num_attention_heads * shape.head_dim + keys
    inputs = 2 * shape.hidden_size + shape.intermediate_size
    kept = 2 * inputs if step.config.method == "qlora" else 0
    return 2 * together + 2 * together + shape.hidden_size + kept


def _litgpt_breakdown(weights: int, activations: int, overhead: int) -> MemoryBreakdown:
    overhead += CUBLAS_WORKSPACE
    return MemoryBreakdown(weights, 0, 0, activations, overhead, "predicted", "the loss")


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
        (Path(folder) / "config.json").write_text(json.dumps(SMALL))
        for values in itertools.product(*choices.values()):
            run = dict(zip(choices, values, strict=True))
            config = FinetuneConfig(model=folder, **run)
            measured = measure_memory(config)
            for verb in (predict_memory, simulate_memory):
                judge = f"CPU live bytes, {verb.__name__}"
                yield compare(judge, "small", config, verb(config), measured)


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
    head = f"{'':<60}{'runs':>6}{'lowest':>9}{'highest':>9}{'median size':>13}"
    lines = [head]
    for group in dict.fromkeys([row.group[:1] for row in rows] + [row.group for row in rows]):
        errors = [row.error for row in rows if row.group[: len(group)] == group]
        size = statistics.median(map(abs, errors))
        spread = f"{min(errors):>+9.2%}{max(errors):>+9.2%}{size:>13.2%}"
        lines.append(f"{', '.join(group):<60}{len(errors):>6}{spread}")
    worst = sorted(rows, key=lambda row: -abs(row.error))[:10]
    return "\n".join([*lines, "", "the ten worst, and the term to blame", *map(str, worst)])


def main() -> None:
    """Compare with each judge and print the report."""
    published = [*fitcheck_runs(predict_step), *fitcheck_runs(simulate_step), *litgpt_runs()]
    print(report([*published, *small_runs(), *large_models()]))


if __name__ == "__main__":
    main()
