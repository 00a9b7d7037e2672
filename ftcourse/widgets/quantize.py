"""The panel that rounds real weights, and says what the model still read with such weights."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.errors import CourseError
from ftcourse.plots.quantize import plot_levels
from ftcourse.quantize import quantize_as
from ftcourse.sweeps import Run, load_sweep, select
from ftcourse.widgets.panel import Panel, Values

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SCHEMES = {"integers": "integer", "with a zero point": "affine", "normal levels (NF)": "normal"}
SCHEMES |= {"FP4 (4 bits)": "fp4"}
LABELS = {"block": "block (weights)"}
WORDS = {
    "scheme": "Where the levels stand: evenly, or where normal weights are.",
    "bits": "Bits of a code: twice as many levels for one more.",
    "block": "How many weights share one absmax, which is stored in 32 bits.",
    "layer": "Whose weights the histogram shows. The ability is that of all layers together.",
    "part": "Which of a layer's seven matrices the histogram shows.",
}


def quantize_panel() -> Panel:
    """Return a panel over the embedded model's weights: scheme, bits, block, layer and part."""
    menus = {"scheme": [*SCHEMES.items()], "bits": [2, 3, 4, 5, 6, 8]}
    menus |= {"block": ["tensor", "row", 64, 32], "layer": range(5), "part": PARTS}
    start = {"scheme": "integer", "bits": 8, "block": "tensor", "layer": 2, "part": "down_proj"}
    controls: dict[str, ipywidgets.Widget] = {
        name: (ipywidgets.SelectionSlider if name in ("bits", "block") else ipywidgets.Dropdown)(
            options=[*options], value=start[name], description=LABELS.get(name, name)
        )
        for name, options in menus.items()
    }
    return Panel(_draw, controls, "How few bits?", words=WORDS, change=_change)


def recorded(scheme: str, bits: int, block: int | str) -> Run:
    """Return the recorded run of the whole model with these settings."""
    return select(load_sweep("quantize"), scheme=scheme, bits=bits, block=block, part="all")[0]


def _draw(
    scheme: str, bits: int, block: int | str, layer: int, part: str
) -> tuple[Axes | str, ...]:
    weight = _weights()[f"layers.{layer}.{'mlp' if part in PARTS[4:] else 'self_attn'}.{part}"]
    found, run = quantize_as(scheme, weight, bits, block), recorded(scheme, bits, block)
    error = ((found.dequantize() - weight).square().mean() / weight.square().mean()).sqrt()
    size = found.block_size
    units = weight.flatten() / found.absmax.repeat_interleave(size)[: weight.numel()]
    xlabel = "weight / its absmax"
    if found.zero_point is not None:
        units = units + found.zero_point.repeat_interleave(size)[: weight.numel()]
        xlabel = "integer"
    picture = plot_levels(units.numpy(), found.codebook.numpy(), xlabel=xlabel)
    zeros = (found.dequantize() == 0).float().mean()
    text = (
        f"{run['bits_per_weight']:.2f} bits a weight in all layers; reads {run['right']} of "
        f"{run['count']} right (recorded, {run['date']}).\n"
        f"{part} of layer {layer}: error {error:.1%} of its size, {zeros:.0%} rounded to zero."
    )
    return picture, text


def _change(before: Values, after: Values) -> str:
    """Return how many questions a move won or lost."""
    names = ("scheme", "bits", "block")
    try:
        old, new = (recorded(*(values[n] for n in names)) for values in (before, after))
    except CourseError:  # FP4 has been measured in 4 bits alone
        return ""
    apart = new["right"] - old["right"]
    return f"{apart:+} questions right" if apart else "no question more or less"


@cache
def _weights() -> Mapping[str, Any]:
    """Return the embedded model's linear weights by name; it is read once."""
    from ftcourse.config import FinetuneConfig  # here: loading a model takes seconds
    from ftcourse.models import load_base

    state = load_base(FinetuneConfig(model="embedded", method="full")).state_dict()
    names = [name for name in state if "_proj" in name]
    return {name[len("model.") : -len(".weight")]: state[name].float().cpu() for name in names}
