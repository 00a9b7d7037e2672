"""The panel of lesson 05: what each choice of QLoRA costs in bytes, and in recorded quality."""

from collections import defaultdict
from statistics import fmean
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig
from ftcourse.hardware import CARDS
from ftcourse.memory import predict_memory, show_bytes
from ftcourse.memory.fit import context_bytes, judge_fit
from ftcourse.plots import plot_memory
from ftcourse.shape.hub import named_shapes
from ftcourse.sweeps import Mean, Run, load_sweep, over_seeds, select
from ftcourse.widgets.panel import Panel, Values

WORDS = {
    "bits": "Bits of a frozen weight. With 16 it is LoRA without quantization.",
    "quant_type": "The sixteen levels of a 4-bit weight.",
    "double_quant": "Whether the constants of the blocks are quantized, too.",
    "dtype": "The format of all that is not quantized: embeddings, norms, activations, products.",
    "upcast": "peft's prepare_model_for_kbit_training: norms, embeddings and head in float32.",
    "paged": "Optimizer states in memory that a GPU driver may move to main memory.",
    "model": "Whose bytes are counted.",
    "card": "The device whose memory the run has to fit.",
}


# What the recorded runs call a method or the values of the frozen weights, in words.
METHODS = {"full": "all weights", "lora": "LoRA"}
BASES = {"fp32": "not rounded", "nf4": "NF4", "nf3": "3 bits", "affine2": "2 bits"}
BASES["int4 tensor"] = "4 bits, one scale"


def qlora_panel(model: str = "llama-3.1-8b", card: str = "RTX 3060") -> Panel:
    """Return a panel that begins with a float32 model in FP4, without double quantization."""
    menus = {"bits": [4, 8, 16], "quant_type": ["fp4", "nf4"], "dtype": ["float32", "bfloat16"]}
    menus |= {"model": [*named_shapes()], "card": [*CARDS]}
    start, names = {"model": model, "card": card}, {"dtype": "all else in"}
    controls: dict[str, ipywidgets.Widget] = {
        name: ipywidgets.Dropdown(
            options=options,
            value=start.get(name, options[0]),
            description=names.get(name, name.replace("_", " ")),
        )
        for name, options in menus.items()
    }
    for name in ("double_quant", "upcast", "paged"):
        controls[name] = ipywidgets.Checkbox(value=False, description=name.replace("_", " "))
    idle = {"quant_type": (8, 16), "double_quant": (8, 16), "upcast": (16,)}
    for name, bits in idle.items():  # a control that these bits do not use
        link = (controls["bits"], "value"), (controls[name], "disabled")
        ipywidgets.dlink(*link, lambda value, bits=bits: value in bits)
    return Panel(_draw, controls, "What does each choice cost?", words=WORDS, change=_change)


def config_of(bits: int, dtype: str, paged: bool, **values: Any) -> FinetuneConfig:
    """Return the run that the controls mean: 4 x 512 tokens, rank 16, with checkpointing."""
    fields = {"model": values["model"], "dtype": dtype, "method": "lora"}
    fields["optimizer"] = "paged_adamw_32bit" if paged else "adamw_torch_fused"
    if bits < 16:
        names = ("quant_type", "double_quant", "upcast")
        fields |= {"method": "qlora", "bits": bits} | {name: values[name] for name in names}
    return FinetuneConfig(**fields)


def recorded(
    bits: int,
    dtype: str,
    quant_type: str = "none",
    double_quant: bool = False,
    upcast: bool = False,
    **_: Any,
) -> Mean | None:
    """Return the recorded loss on letters that were held out, over three seeds, or nothing."""
    wanted = {"bits": bits, "dtype": dtype, "upcast": upcast and bits < 16}
    four = {"quant_type": quant_type, "double_quant": double_quant}
    wanted |= four if bits == 4 else {"quant_type": "none", "double_quant": False}
    tried = select(load_sweep("qlora"), task="choices")
    runs = [run for run in tried if wanted.items() <= run.items()]
    return over_seeds(runs, "bits", "test_loss")[bits] if len(runs) > 2 else None


def voice_runs(rate: float | None = None) -> dict[str, list[Run]]:
    """Return the recorded runs on the voice, by method and base, in the order of their seeds.

    Without a rate: at the one with the lowest mean validation loss of three seeds or more.
    """
    groups: dict[tuple[str, float], list[Run]] = defaultdict(list)
    for run in sorted(select(load_sweep("qlora"), task="voice"), key=lambda run: run["seed"]):
        name = f"{METHODS[run['method']]}, {BASES[run['base']]}"
        groups[name, run["learning_rate"]].append(run)
    found: dict[str, list[Run]] = {}
    for (name, tried), same in groups.items():
        if len(same) > 2 and rate in (None, tried):
            pair = found.get(name, same), same
            found[name] = min(pair, key=lambda runs: fmean(r["validation_loss"] for r in runs))
    return found


def _draw(card: str, **values: Any) -> tuple[Axes | str, ...]:
    device, run = CARDS[card], config_of(**values)
    found = predict_memory(run, device)
    lora = predict_memory(config_of(**values | {"bits": 16, "paged": False}), device)
    bars = {"this run": found, f"LoRA, {values['dtype']}": lora}
    picture = plot_memory(bars, device.memory, context=context_bytes(device))
    text = [str(judge_fit(found, device)), _say_quality(**values)]
    if values["paged"]:
        plain = predict_memory(config_of(**values | {"paged": False}), device)
        size = show_bytes(plain.optimizer - found.optimizer)
        text.append(f"{size} of optimizer states are paged: the bar does not count them.")
    return picture, "\n".join(text)


def _say_quality(**values: Any) -> str:
    found, plain = recorded(**values), recorded(16, values["dtype"])
    beside = f"; LoRA without quantization {plain!r}" if plain else ""
    loss = f"{found!r}{beside}" if found else "nobody measured these choices"
    where = " (small model, 80 steps, rate 0.005, one CPU)" if found else ""
    levels = values["quant_type"] if values["bits"] == 4 else ""
    error = f"Error of the rounded weights: {weight_error(levels):.1%}.\n" if levels else ""
    return f"{error}Recorded loss on held-out letters: {loss}{where}."


def weight_error(quant_type: str) -> float:
    """Return the recorded error of the rounded weights: root of squares, as a share of theirs."""
    scheme = "normal" if quant_type == "nf4" else quant_type
    (run,) = select(load_sweep("quantize"), scheme=scheme, bits=4, block=64, part="all")
    return run["error"]


def _change(before: Values, after: Values) -> str:
    """Return what a move did to the bytes of the run."""
    old, new = (predict_memory(config_of(**v), CARDS[v["card"]]) for v in (before, after))
    apart = new.allocated - old.allocated
    size = show_bytes(abs(apart), like=new.allocated)
    return f"{'+' if apart > 0 else '-'}{size}" if apart else "no byte more or less"
