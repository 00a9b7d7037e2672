"""Every picture of the course, as lessons and panels draw it, mostly from what was recorded.

``test_alternatives.py`` reads their words, ``test_colours.py`` looks at their colours.
"""

from dataclasses import replace

import numpy as np

from ftcourse.config import FinetuneConfig
from ftcourse.effects import SHOWN, effects, mixtures
from ftcourse.evaluate import Score
from ftcourse.golf import COURSES
from ftcourse.hardware import CARDS
from ftcourse.lookups import recorded_shares
from ftcourse.memory import predict_memory, predict_timeline
from ftcourse.plots import (
    adapters,
    against,
    cycle,
    finetune,
    golf,
    history,
    lora,
    memory,
    qlora,
    quantize,
    rag,
    reach,
    recorded,
    scale,
    timeline,
    which_one,
)
from ftcourse.scale import Seconds
from ftcourse.sweeps import Mean, load_sweep, over_seeds, select
from ftcourse.which_one import load_table
from ftcourse.widgets.lora import over_ranks
from ftcourse.widgets.lora import recorded as recorded_ranks

LLAMA, TOY, T4 = FinetuneConfig(model="llama-3.1-8b"), FinetuneConfig(model="embedded"), CARDS["T4"]
METHODS = ("full", "lora", "qlora")
MODELS = ["embedded", "smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b", "qwen2.5-3b", "llama-3.1-8b"]
FORMATS = {"16 bits": 16, "int8": 8.1, "NF4": 4.1, "3 bits": 3.1}
ROOMS = {"4 GiB": 4 * 2**30, "8 GiB": 8 * 2**30, "here": 24 * 2**30}
WEIGHTS = np.random.default_rng(0).normal(size=4096).clip(-3, 3) / 3
LOSSES = [{"step": n, "loss": 6 / n, "eval_loss": 1 + abs(n - 9) / 9} for n in range(1, 30)]


def draw_memory(*methods, **fields):
    """Draw the bars of methods for a large model on a T4, as lesson 00 does."""
    bars = {m: predict_memory(replace(LLAMA, method=m, **fields), T4) for m in methods}
    return memory.plot_memory(bars, T4.memory, context=T4.context)


def draw_ability(across):
    """Draw the recorded settings of lesson 01."""
    return quantize.plot_ability(select(load_sweep("quantize"), part="all"), across)


def draw_parts():
    """Draw what each part of the model costs, as lesson 01 does."""
    runs = [run for run in load_sweep("quantize") if run["part"] not in ("all", "mix")]
    scores = {run["part"].strip("."): Score(run["right"], run["count"]) for run in runs}
    return quantize.plot_scores(scores)


def draw_fits():
    """Draw six models in four formats."""
    billions = (0.5, 1.2, 3.1, 7.6, 8, 70)
    sizes = {f"{n} B": {f: n * 1e9 * b / 8 for f, b in FORMATS.items()} for n in billions}
    return quantize.plot_fits(sizes, ROOMS)


def draw_levels(count):
    """Draw weights on this many even levels."""
    return quantize.plot_levels(WEIGHTS, np.linspace(-1, 1, count))


def draw_ranks(task):
    """Draw a recorded result over the ranks, as lesson 02 does."""
    levels = {"full fine-tuning": recorded_ranks(task, 0, 0, method="full")}
    return lora.plot_over_ranks({"LoRA": over_ranks(task)}, task, levels, {"run live": (1, 0.2)})


def draw_poison():
    """Draw lesson 07's widest picture."""
    runs = select(load_sweep("rag"), task="pair", at="first")
    shares = recorded_shares(runs, "beside: {kind}", believed="false value", right="true value")
    return rag.plot_shares(shares, "answers, %")


def draw_orders():
    """Draw three series of lesson 07."""
    runs = select(load_sweep("rag"), task="orders")
    names = {"followed": "follows the order", "right": "right", "clean": "right without attack"}
    return rag.plot_shares(recorded_shares(runs, "{name}, k = {k}", **names), "of the questions, %")


def draw_recall():
    """Draw two shares that grow with the passages."""
    lines = {name: [Score(60 - gap // n, 60) for n in range(1, 6)] for name, gap in
             {"the right page": 10, "a chunk with the value": 30}.items()}  # fmt: skip
    return rag.plot_recall(lines, k=3)


def draw_healing():
    """Draw what healing brings each base."""
    heal = select(load_sweep("qlora"), task="heal", steps=80, learning_rate=5e-3)
    was = {run["base"]: run["right_before"] for run in heal if run["seed"] == 0}
    now = over_seeds(heal, "base", "right")
    return qlora.plot_healing({base: (was[base], now[base].values) for base in was}, 239)


def draw_rates():
    """Draw all methods of lesson 03."""
    runs = select(load_sweep("adapters"), steps=None)
    return adapters.plot_rates(runs, [*dict.fromkeys(run["method"] for run in runs)])


def draw_rate(rate):
    """Draw one method of lesson 03."""
    return adapters.plot_rate(select(load_sweep("adapters"), steps=None), "IA3", rate)


def draw_arms(best="", dropped=()):
    """Draw the six ways of lesson 08."""
    return which_one.plot_arms(load_table(), best=best, dropped=dropped)


def draw_trade():
    """Draw two columns of lesson 08."""
    return which_one.plot_trade(load_table(), "seconds, forty facts", "right and in voice")


def draw_lines():
    """Draw three timelines over each other."""
    lines = {method: predict_timeline(replace(TOY, method=method)) for method in METHODS}
    return timeline.plot_timeline(lines)


def draw_golf():
    """Draw a course with two rounds of a player, one that counts and one that does not."""
    course = next(iter(COURSES.values()))
    good = {"course": course.name, "peak": course.par, "test_loss": course.target / 2}
    return golf.plot_golf(course, [good, good | {"test_loss": 5.0}])


def draw_cards(chosen=None):
    """Draw one of one, two, four and eight GPUs, as lesson 09 and its panel do."""
    run, card = replace(LLAMA, method="qlora", batch_size=1, max_length=8192), CARDS["A100 80GB"]
    steps = {n: predict_memory(run, card, n, "fsdp") for n in (1, 2, 4, 8)}
    return scale.plot_cards(steps, card, chosen)


def draw_seconds():
    """Draw as many rows of seconds as lesson 09 does."""
    links = {"NVLink, A100": 0.054, "PCIe 4.0 x16": 0.51, "ethernet 10G": 12.9}
    runs = {"full, ddp": 2.08, "lora, ddp": 1.46, "lora, fsdp": 1.46}
    found = {f"{r}\n{k}": Seconds(c, s) for r, c in runs.items() for k, s in links.items()}
    return scale.plot_seconds(found)


PICTURES = {
    "bars that fit and do not": lambda: draw_memory(*METHODS),
    "one bar": lambda: draw_memory("qlora"),
    "longer texts": lambda: against.plot_memory_against(
        LLAMA, "max_length", [512, 1024, 2048, 4096], T4, T4.memory
    ),
    "a step": lambda: timeline.plot_timeline(predict_timeline(TOY)),
    "three steps": draw_lines,
    "a training step": cycle.plot_training_step,
    "losses": lambda: history.plot_history(LOSSES, mark={9: "kept"}),
    "longest texts": lambda: reach.plot_longest(MODELS, T4, batch_size=1),
    "recorded runs": recorded.plot_recorded,
    "golf": draw_golf,
    "bits": lambda: quantize.plot_bits(0.11, 0.47),
    "rounding": lambda: quantize.plot_rounding(
        WEIGHTS[:8], {"even": np.linspace(-1, 1, 7), "odd": [-1, 0, 1]}
    ),
    "few levels": lambda: draw_levels(15),
    "many levels": lambda: draw_levels(255),
    "scores": draw_parts,
    "ability by bits": lambda: draw_ability("bits_per_weight"),
    "ability by error": lambda: draw_ability("error"),
    "ability by loss": lambda: draw_ability("loss"),
    "sizes in formats": draw_fits,
    "two thin matrices": lambda: lora.plot_lora(128, 128, 8),
    "energy": lambda: lora.plot_energy(
        {"the update": np.linspace(0.3, 1, 64), "noise": np.linspace(0.01, 1, 64)}
    ),
    "voice over ranks": lambda: draw_ranks("voice"),
    "facts over ranks": lambda: draw_ranks("facts"),
    "places": adapters.plot_places,
    "rates": draw_rates,
    "a rate": lambda: draw_rate(0.01),
    "a layer of QLoRA": lambda: qlora.plot_qlora(4096, 4096, 16),
    "restored weights": lambda: qlora.plot_restored([0, 98304, 0, 98304], 2**21),
    "seeds": lambda: qlora.plot_seeds(
        {"LoRA": Mean((0.1, 0.2, 0.15)), "NF4": Mean((0.12, 0.3, 0.2))}, "loss"
    ),
    "healing": draw_healing,
    "the way of a file": finetune.plot_way,
    "lengths": lambda: finetune.plot_lengths([60, 70, 90, 100], 80),
    "a search": lambda: finetune.plot_search([0.001, 0.01, 0.1], [3, 2, 4], 0.005),
    "effects": lambda: finetune.plot_effects({n: effects(mixtures()[n]) for n in SHOWN}),
    "a lookup": lambda: rag.plot_lookup("How fast is\nthe Wren?", 3),
    "shares": draw_poison,
    "shares of three": draw_orders,
    "recall": draw_recall,
    "arms": draw_arms,
    "a decision": lambda: draw_arms("RAG", ["prompt", "LoRA"]),
    "a trade": draw_trade,
    "who holds what": scale.plot_held,
    "several GPUs": draw_cards,
    "one of several GPUs": lambda: draw_cards(4),
    "computing and sending": draw_seconds,
}
"""A name to a function that draws."""
