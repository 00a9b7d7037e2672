"""Measure training through quantized weights: quality over bases, seeds, noise, and after a merge.

Run ``PYTHONPATH=. python benchmarks/sweep_qlora.py`` from the root, or with the names of some tasks
behind it; a run that stopped goes on. The base's weights are replaced by their dequantized values,
in float32, and our LoRA stands beside them: its losses equal those of bitsandbytes and peft bit for
bit (``tests/test_qlora.py``). The task ``choices`` runs bitsandbytes and peft themselves.
``data/measured/README.md`` says what a line holds.
"""

import random
import sys
from collections.abc import Callable, Iterator
from itertools import product

import torch
from sweep import Run, sweep
from sweep_lora import STEPS, judge_facts, questions, validation
from torch import Tensor, nn

from data.making.make_world import fresh
from ftcourse.config import FinetuneConfig
from ftcourse.data import encode, load_dialogues, read_records
from ftcourse.evaluate import advice_score, answer_all, held_out_loss, text_loss
from ftcourse.files import course_path
from ftcourse.handbook import fact_score, load_questions
from ftcourse.loop import draw_batches, train_on
from ftcourse.lora import LoRALinear, inject_lora, target_linears
from ftcourse.models import attach_adapter, load_base, load_tokenizer
from ftcourse.quantize import NF4, Quantized, quantize_as, quantize_blockwise
from ftcourse.voice import voice_score

tokenizer = load_tokenizer("embedded")
BASES: dict[str, Callable[[Tensor], Quantized] | None] = {
    "fp32": None,
    "nf4": lambda w: quantize_blockwise(w, NF4),
    "int4 tensor": lambda w: quantize_as("integer", w, 4, "tensor"),
    "nf3": lambda w: quantize_as("normal", w, 3),
    "affine2": lambda w: quantize_as("affine", w, 2),
}
FIVE, THREE = range(5), range(3)
HEAL_RATES = (2e-3, 5e-3)
LORA_RATES = (5e-3, 1e-2)


def base_model(base: str) -> nn.Module:
    """Return the embedded model with the values that a quantized base restores."""
    model = load_base(FinetuneConfig(model="embedded", method="full", dtype="float32"))
    if BASES[base]:
        for module in target_linears(model).values():
            module.weight.data = BASES[base](module.weight).dequantize()
    return model


def prepare(base: str, method: str, rank: int, seed: int) -> nn.Module:
    """Return a model to train: LoRA with alpha = 2 ranks, or the same modules in full."""
    model = base_model(base)
    torch.manual_seed(seed)
    if method == "lora":
        return inject_lora(model, "all-linear", rank, 2 * rank)
    trained = target_linears(model).values()
    model.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    return model


@torch.no_grad()
def merged(model: nn.Module, base: str, how: str) -> nn.Module:
    """Return a plain model with the adapter in its weights, in one of three ways.

    ``16``: the values that training saw plus the update, rounded to bfloat16. ``original``: the
    weights before quantization plus the update, rounded to bfloat16. ``4``: the values that
    training saw plus the update, quantized again.
    """
    plain = base_model("fp32")
    adapted = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    for name, module in adapted.items():
        target = plain.get_submodule(name)
        start = target.weight if how == "original" else module.base_layer.weight
        whole = start + module.update()
        rounded = whole.bfloat16().float() if how != "4" else BASES[base](whole).dequantize()
        target.weight.data = rounded
    return plain


def after_merges(model: nn.Module, base: str, judge: Callable[[nn.Module], Run]) -> Run:
    """Return what a judge finds after each of the three merges."""
    ways = ("16", "original", "4")
    found = {way: judge(merged(model, base, way)) for way in ways}
    return {f"merged {way}: {name}": found[way][name] for way in ways for name in found[way]}


def judge_letters(model: nn.Module) -> Run:
    """Return the loss of letters that were not trained on, and the share with the voice."""
    test = load_dialogues("test")[:100]
    answers = answer_all(model, tokenizer, test)
    return {
        "test_loss": test_loss(model),
        "voice": voice_score(answers).successes,
        "advice": advice_score(answers, test).successes,
    }


def test_loss(model: nn.Module) -> float:
    """Return the loss of the 100 letters for reporting."""
    return round(held_out_loss(model, tokenizer, load_dialogues("test")[:100]), 4)


def judge_reading(model: nn.Module) -> Run:
    """Return how many of the 239 pages are read right, and the loss of general texts."""
    asked = load_questions()
    general = [row["text"] for row in read_records(course_path("data/general.jsonl"))]
    return {
        "right": fact_score(answer_all(model, tokenizer, asked), asked).successes,
        "general_loss": round(text_loss(model, tokenizer, general[:100]), 4),
    }


def letters(seed: int, noise: str = "none") -> list[Run]:
    """Return the training letters. With noise, half of them are spoiled.

    ``answers``: half of the letters get the answer to another one. ``typing``: in half of the
    letters one character of ten is another one.
    """
    records, rng = load_dialogues("train"), random.Random(f"noise {seed}")
    spoiled = rng.sample(range(len(records)), len(records) // 2) if noise != "none" else []
    wrong = spoiled[1:] + spoiled[:1]
    given = {one: records[other]["completion"] for one, other in zip(spoiled, wrong, strict=True)}
    for number in spoiled:
        record = records[number]
        if noise == "answers":
            records[number] = record | {"completion": given[number]}
        else:
            records[number] = record | {"prompt": mistype(record["prompt"], rng)}
    return records


def mistype(text: str, rng: random.Random) -> str:
    """Return a text in which one character of ten is a random letter."""
    return "".join(
        rng.choice("abcdefghijklmnopqrstuvwxyz") if rng.random() < 0.1 else each for each in text
    )


def learn_voice(base: str, method: str, learning_rate: float, seed: int, **more) -> Run:
    """Train on letters and judge the model on others, as it is and merged."""
    model = prepare(base, method, 8, seed)
    steps, batch_size = STEPS["voice"]
    records = encode(letters(seed, more.get("noise", "none")), tokenizer, 512)
    train_on(model, draw_batches(records, batch_size, steps, seed), learning_rate)
    loss = {"validation_loss": round(held_out_loss(model, tokenizer, validation()), 4)}
    if "noise" in more:
        return loss | {"test_loss": test_loss(model)}
    merges = after_merges(model, base, judge_letters) if base == "nf4" else {}
    return loss | judge_letters(model) | merges


def heal(base: str, learning_rate: float, seed: int, steps: int) -> Run:
    """Train on texts of the kind that the model learned from, 8 a step; judge what it reads."""
    model = prepare(base, "lora", 8, seed)
    first = seed == 0 and steps == 80  # the base is the same with every seed
    before = {f"{n}_before": v for n, v in judge_reading(model).items()} if first else {}
    records = encode(fresh(8 * steps), tokenizer, 512)
    train_on(model, draw_batches(records, 8, steps, seed), learning_rate)
    if not (first and BASES[base]):
        return before | judge_reading(model)
    again = judge_reading(merged(model, base, "4"))
    return before | judge_reading(model) | {f"merged 4: {n}": v for n, v in again.items()}


def draw(seed: int, batches: int, learning_rate: float, **_) -> Run:
    """Train LoRA on letters, with the start of A and the order of letters drawn on their own."""
    model = prepare("fp32", "lora", 8, seed)
    steps, batch_size = STEPS["voice"]
    records = encode(letters(0), tokenizer, 512)
    train_on(model, draw_batches(records, batch_size, steps, batches), learning_rate)
    return {"test_loss": test_loss(model)}


def exchange(seed: int, learning_rate: float, **_) -> Run:
    """Train LoRA beside the float32 weights, then put its update onto the values of NF4."""
    model = prepare("fp32", "lora", 8, seed)
    steps, batch_size = STEPS["voice"]
    records = encode(letters(seed), tokenizer, 512)
    train_on(model, draw_batches(records, batch_size, steps, seed), learning_rate)
    other = base_model("nf4")
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            weight = other.get_submodule(name).weight
            weight.data = weight + module.update().detach()
    return {"test_loss": test_loss(model), "on nf4: test_loss": test_loss(other)}


def learn_facts(base: str, rank: int, learning_rate: float, seed: int) -> Run:
    """Train on the handbook's questions and judge another wording, as ``sweep_lora.py`` does."""
    model = prepare(base, "lora", rank, seed)
    steps, batch_size = STEPS["facts"]
    records = encode(questions(0) + questions(1), tokenizer, 512)
    train_on(model, draw_batches(records, batch_size, steps, seed), learning_rate)
    return judge_facts(model) | (after_merges(model, base, judge_facts) if rank == 64 else {})


def choose(bits: int, quant_type: str, double_quant: bool, dtype: str, upcast: bool, **run) -> Run:
    """Train with bitsandbytes and peft on letters; bits 16 is LoRA without quantization."""
    kind = {"method": "lora"}
    if bits < 16:
        kind = {"method": "qlora", "bits": bits, "upcast": upcast}
        kind |= {"quant_type": quant_type, "double_quant": double_quant} if bits == 4 else {}
    config = FinetuneConfig(
        model="embedded", dtype=dtype, rank=8, alpha=16, gradient_checkpointing=False, **kind
    )
    torch.manual_seed(run["seed"])
    model = attach_adapter(load_base(config), config)
    steps, batch_size = STEPS["voice"]
    records = encode(load_dialogues("train"), tokenizer, 512)
    train_on(model, draw_batches(records, batch_size, steps, run["seed"]), run["learning_rate"])
    return {"test_loss": test_loss(model)}


def measure(task: str, **setting) -> Run:
    """Measure one setting of a task."""
    tasks = {"voice": learn_voice, "noise": learn_voice, "heal": heal, "facts": learn_facts}
    tasks |= {"draws": draw, "exchange": exchange, "choices": choose}
    return tasks[task](**setting)


def voice() -> Iterator[Run]:
    """Yield bases and the full fine-tune: two or three rates with seed 0, then other seeds.

    For the comparison of LoRA and NF4 both rates have five seeds, because at the higher one single
    runs go astray, and a rate that one seed chose would decide it. The other bases have five seeds
    at the rate that seed 0 chose.
    """
    task = {"task": "voice"}
    for rate in (1e-3, 2e-3, 4e-3):
        yield task | {"base": "fp32", "method": "full", "learning_rate": rate, "seed": 0}
    for base, rate in product(BASES, LORA_RATES):
        yield task | {"base": base, "method": "lora", "learning_rate": rate, "seed": 0}
    for seed in FIVE[1:]:
        yield task | {"base": "fp32", "method": "full", "learning_rate": 2e-3, "seed": seed}
        for base, rate in product(("fp32", "nf4"), LORA_RATES):
            yield task | {"base": base, "method": "lora", "learning_rate": rate, "seed": seed}
    for seed, base in product(FIVE[1:], ("int4 tensor", "nf3", "affine2")):
        yield task | {"base": base, "method": "lora", "learning_rate": 1e-2, "seed": seed}


def noise() -> Iterator[Run]:
    """Yield two kinds of noise on two bases, at the lower rate."""
    for seed, what, base in product(THREE, ("answers", "typing"), ("fp32", "nf4")):
        kind = {"task": "noise", "base": base, "method": "lora", "noise": what}
        yield kind | {"learning_rate": 5e-3, "seed": seed}


def healing() -> Iterator[Run]:
    """Yield all bases at two rates with seed 0, other seeds at the higher one, and long runs."""
    task = {"task": "heal", "steps": 80}
    for base, rate in product(BASES, HEAL_RATES):
        yield task | {"base": base, "learning_rate": rate, "seed": 0}
    for seed, base in product(THREE[1:], BASES):
        yield task | {"base": base, "learning_rate": 5e-3, "seed": seed}
    for seed in THREE:  # does it need more time?
        kind = {"task": "heal", "base": "affine2", "learning_rate": 5e-3}
        yield kind | {"seed": seed, "steps": 320}
    for rate in (1e-2, 2e-2):  # or larger steps?
        yield task | {"base": "affine2", "learning_rate": rate, "seed": 0}


def draws() -> Iterator[Run]:
    """Yield LoRA with three starts of A, each with three orders of the letters."""
    for seed, batches in product(THREE, THREE):
        yield {"task": "draws", "learning_rate": 5e-3, "seed": seed, "batches": batches}


def exchanges() -> Iterator[Run]:
    """Yield LoRA that is trained beside float32 weights and moved onto rounded ones."""
    for seed in FIVE:
        yield {"task": "exchange", "learning_rate": 5e-3, "seed": seed}


def facts() -> Iterator[Run]:
    """Yield NF4 at two ranks, at LoRA's rates; the other methods are in ``sweep_lora.py``."""
    for (rank, rate), seed in product(((64, 2e-3), (8, 5e-3)), THREE):
        kind = {"task": "facts", "base": "nf4", "rank": rank}
        yield kind | {"learning_rate": rate, "seed": seed}


def choices() -> Iterator[Run]:
    """Yield the panel's choices that change what is computed, in bitsandbytes itself."""
    names = ("bits", "quant_type", "double_quant", "dtype", "upcast")
    kinds = [(4, kind, double, "bfloat16", False) for kind in ("nf4", "fp4") for double in (1, 0)]
    kinds += [(16, "none", 0, "bfloat16", False), (8, "none", 0, "bfloat16", False)]
    kinds += [(4, "nf4", 1, "bfloat16", True), (4, "fp4", 0, "float32", False)]
    kinds += [(16, "none", 0, "float32", False)]
    for seed, kind in product(THREE, kinds):
        setting = dict(zip(names, kind, strict=True))
        setting["double_quant"] = bool(setting["double_quant"])
        yield {"task": "choices"} | setting | {"learning_rate": 5e-3, "seed": seed}


TASKS = {"voice": voice, "heal": healing, "noise": noise, "facts": facts, "choices": choices}
TASKS |= {"draws": draws, "exchange": exchanges}

if __name__ == "__main__":
    for name in sys.argv[1:] or TASKS:
        sweep("qlora", TASKS[name](), measure)
