"""The panel of the ways to train a part of a model: their bytes, and what they reached."""

from functools import partial
from statistics import fmean

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.errors import CourseError
from ftcourse.memory import show_bytes
from ftcourse.plots.adapters import best_rate, plot_rate, validation_losses
from ftcourse.shape import ModelShape, load_shape, parameter_count
from ftcourse.shape.hub import named_shapes
from ftcourse.sweeps import Run, load_sweep, select
from ftcourse.widgets.panel import Panel, Values

SIZES = dict(
    LoRA=2, rsLoRA=2, DoRA=2, VeRA=256, bottleneck=10, prefix=20, prompt=20, IA3=0, norms=0
)
"""The recorded size of each method: rank, width, or virtual tokens; 0 where there is no size."""
UNITS = dict(bottleneck="width", prefix="tokens", prompt="tokens", IA3="none", norms="none")
PLACES = ("v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TRAINING_BYTES = 16  # weight, gradient and AdamW's two states of a trained number, in float32
WORDS = {
    "method": "What is trained beside the frozen model.",
    "rate": "The learning rate of the recorded run.",
    "size": "Rank, width or virtual tokens. It changes the bytes; one size only was recorded.",
    "model": "Whose bytes are counted. The recorded runs are all of the embedded model.",
}


def trained_parameters(
    shape: ModelShape, method: str, size: int, places: tuple[str, ...] = PLACES
) -> int:
    """Return how many numbers a method trains in a model whose layers are like Llama's.

    ``size`` is a rank, the bottleneck's width or a count of virtual tokens. LoRA and its kin train
    the modules ``places`` of each layer.

    >>> trained_parameters(load_shape("embedded"), "LoRA", 2)
    20480
    """
    if method not in SIZES:
        must = "A method has a name that we know."
        raise CourseError(must, repr(method), f"Use one of {', '.join(SIZES)}.")
    hidden, keys = shape.hidden_size, shape.num_key_value_heads * shape.head_dim
    inputs, outputs = (sum(shape.linears[place][side] for place in places) for side in (0, 1))
    if method == "prompt":  # the only one that no layer has of its own
        return size * hidden
    in_a_layer = {
        "LoRA": size * (inputs + outputs),
        "rsLoRA": size * (inputs + outputs),
        "DoRA": size * (inputs + outputs) + outputs,
        "VeRA": size * len(places) + outputs,
        "bottleneck": 2 * (2 * hidden * size + size + hidden),
        "prefix": 2 * keys * size,
        "IA3": 2 * keys + shape.intermediate_size,
        "norms": 2 * hidden,
    }[method]
    return shape.num_hidden_layers * in_a_layer + (hidden if method == "norms" else 0)


def training_bytes(method: str, size: int, model: str, **_: Values) -> int:
    """Return the bytes of a method's weights, gradients and optimizer states in a model."""
    return TRAINING_BYTES * trained_parameters(load_shape(model), method, size)


def frozen_bytes(shape: ModelShape, size: int, places: tuple[str, ...] = PLACES) -> int:
    """Return the bytes of VeRA's two frozen matrices, as wide as the widest module, in float32."""
    widest = [max(shape.linears[place][side] for place in places) for side in (0, 1)]
    return 4 * size * sum(widest)


def recorded_runs() -> list[Run]:
    """Return the runs of the methods here; select skips longer runs, which say their steps."""
    return [run for run in select(load_sweep("adapters"), steps=None) if run["method"] in SIZES]


def recorded_voice(method: str, rate: float, size: int, **_: Values) -> float | None:
    """Return the share of validation letters in the brand's voice, None if nobody measured it."""
    runs = [run for run in recorded_runs() if (run["method"], run["rate"]) == (method, rate)]
    known = runs and SIZES[method] in (0, size)
    return fmean(run["validation_voice"] for run in runs) if known else None


def adapters_panel(method: str = "LoRA", model: str = "llama-2-7b") -> Panel:
    """Return a panel with the bytes of a method in a model and its recorded losses by rate."""
    runs = recorded_runs()
    controls = _controls(runs, method, model)
    return Panel(partial(_draw, runs), controls, "What is trained?", None, WORDS)


def _controls(runs: list[Run], method: str, model: str) -> dict[str, ipywidgets.Widget]:
    rates = {f"{rate:g}": rate for rate in sorted({run["rate"] for run in runs})}
    models = [*dict.fromkeys([model, "embedded", *named_shapes()])]
    sizes, kind = [1, 2, 4, 8, 10, 16, 20, 32, 64, 128, 256], ipywidgets.SelectionSlider
    menu = ipywidgets.Dropdown(options=[*SIZES], value=method, description="method")
    size = kind(options=sizes, value=SIZES[method] or 1, description="size")
    # A method begins at its recorded size, and the slider rests where a method has no size.
    ipywidgets.dlink((menu, "value"), (size, "value"), lambda name: SIZES[name] or size.value)
    ipywidgets.dlink((menu, "value"), (size, "disabled"), lambda name: not SIZES[name])
    label = (size, "description")
    ipywidgets.dlink((menu, "value"), label, lambda name: f"size ({UNITS.get(name, 'rank')})")
    return {
        "method": menu,
        "rate": kind(options=rates.items(), value=0.01, description="learning rate"),
        "size": size,
        "model": ipywidgets.Dropdown(options=models, description="model"),
    }


def _draw(runs: list[Run], **values: Values) -> tuple[Axes | str, ...]:
    """Draw the recorded losses; say the bytes of the method and what was recorded."""
    method, rate, size, model = values.values()
    count = trained_parameters(load_shape(model), method, size)
    share = count / parameter_count(load_shape(model))
    training = show_bytes(training_bytes(method, size, model))
    said = f" of size {size}" if SIZES[method] else ""
    more = f"\nAnd {show_bytes(frozen_bytes(load_shape(model), size))} for VeRA's frozen matrices."
    first = f"{method}{said} in {model}: {count:,} trained numbers, {share:.3%} of the model."
    return (
        plot_rate(runs, method, rate),
        f"{first}\n{training} to train them: weights, gradients and AdamW's states in float32."
        + more * (method == "VeRA"),
        *_notes(runs, method, rate, size),
    )


def _notes(runs: list[Run], method: str, rate: float, size: int) -> list[str]:
    """Return what was recorded at this rate, and at which size."""
    losses, best, one = validation_losses(runs, method), best_rate(runs, method), runs[0]
    notes = [f"Recorded on the embedded model ({one['device']}), {one['date']}; 80 steps of 8."]
    if SIZES[method] not in (0, size):
        notes.append(f"The losses were recorded at size {SIZES[method]}, not {size}.")
    if rate not in losses:
        measured = ", ".join(f"{each:g}" for each in losses)
        return [*notes, f"No run of {method} at {rate:g}; measured are {measured}."]
    loss, voice = losses[rate], recorded_voice(method, rate, SIZES[method])
    mean = repr(loss) if len(loss.values) > 1 else f"{loss.mean:.3f} (one seed only)"
    said = f"validation loss {mean}, validation voice {voice:.0%}"
    return [*notes, f"At {rate:g}: {said}. The best rate of {method} is {best:g}."]
