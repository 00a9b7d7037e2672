"""The panel of lesson 02: what an adapter costs, and how good the recorded sweep found it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig, adapted_modules
from ftcourse.errors import CourseError
from ftcourse.memory import predict_memory, show_bytes
from ftcourse.plots import plot_over_ranks
from ftcourse.shape import load_shape, parameter_count
from ftcourse.shape.hub import named_shapes
from ftcourse.sweeps import Mean, Run, load_sweep, over_seeds, select
from ftcourse.widgets.panel import Panel

ALL, QV = "all-linear", "q_proj, v_proj"
RESULTS = {"voice": "test_loss", "facts": "recall_test"}
SAYS = {
    "voice": "held-out loss (lower is better)",
    "facts": "share of the facts that are right (higher is better)",
}
WORDS = {
    "task": "What is learned: the voice of the letters, or 239 facts of the handbook by heart.",
    "targets": "Which linear modules of each layer get a pair of matrices.",
    "rank": "Inner width of the two matrices.",
    "alpha": "The product of the two matrices is multiplied by alpha / rank.",
    "model": "For which other model the bytes are counted.",
    "train": "Train this point now on the small model, with the voice: some seconds.",
}


def lora_panel(model: str = "llama-3.1-8b") -> Panel:
    """Return a panel that counts an adapter and shows what the recorded sweep says of it.

    The button trains the point that is shown, and marks it beside the recorded ones.
    """
    ranks = sorted({run["rank"] for run in _runs() if run["method"] == "lora"})
    alphas = sorted({run["alpha"] for run in _runs() if run["method"] == "lora"})
    menus = {"task": [*RESULTS], "targets": [ALL, QV], "model": [*named_shapes()]}
    sliders, start = {"rank": ranks, "alpha": alphas}, {"rank": 8, "alpha": 16, "model": model}
    controls = {
        name: kind(options=options, value=start.get(name, options[0]), description=name)
        for kind, group in ((ipywidgets.Dropdown, menus), (ipywidgets.SelectionSlider, sliders))
        for name, options in group.items()
    }
    ipywidgets.dlink((controls["rank"], "value"), (controls["alpha"], "value"), lambda r: 2 * r)
    view = _View()
    return Panel(view.draw, controls, "What does a rank buy?", {"train": view.train}, WORDS)


class _View:
    """What the panel draws, and the points that its button trained."""

    def __init__(self) -> None:
        self.trained: dict[tuple, tuple[dict, str]] = {}

    def draw(self, task: str, model: str, **point: Any) -> tuple[Axes | str, ...]:
        """Draw the recorded line of a task, and the point that the controls choose."""
        here, key = recorded(task, **point), (task, *point.values())
        marks = {"here": (point["rank"], here.mean)} if here else {}
        text = [
            *_count(model, **point),
            f"recorded on a CPU: {SAYS[task]} {here or 'nobody measured it'}",
        ]
        if key in self.trained:
            marks, words = self.trained[key]
            text.append(words)
        lines = {"all-linear": over_ranks(task), "q and v only": over_ranks(task, QV)}
        levels = {"full fine-tuning": recorded(task, 0, 0, ALL, "full")}
        picture = plot_over_ranks(lines, SAYS[task].partition(" (")[0], levels, marks)
        return picture, "\n".join(text)

    def train(self, task: str, model: str, **point: Any) -> tuple[Axes | str, ...]:
        """Train the voice at this point with seed 0, as the sweep does, and draw it."""
        if task != "voice":
            do = "Choose the task voice. For the facts there is the recorded sweep."
            raise CourseError("The panel trains what takes some seconds.", f"task {task}", do)
        rate = next((run["learning_rate"] for run in _at(task, **point)), 5e-3)
        loss = train_voice(point["rank"], point["alpha"], point["targets"], rate)
        words = f"trained now: held-out loss {loss:.3f}, learning rate {rate:g}, seed 0"
        self.trained[task, *point.values()] = {"trained now": (point["rank"], loss)}, words
        return self.draw(task, model, **point)


def train_voice(rank: int, alpha: float, targets: str, rate: float, seed: int = 0) -> float:
    """Train one point of the recorded sweep again; return its loss on held-out letters."""
    import torch  # here: the panel shows recorded points without it

    from ftcourse.data import encode, load_dialogues
    from ftcourse.evaluate import held_out_loss
    from ftcourse.loop import draw_batches, train_on
    from ftcourse.lora import inject_lora
    from ftcourse.models import load_base, load_tokenizer

    tokenizer = load_tokenizer("embedded")
    model = load_base(FinetuneConfig(model="embedded", method="full", dtype="float32"))
    torch.manual_seed(seed)
    inject_lora(model, ALL if targets == ALL else targets.split(", "), rank, alpha)
    examples = encode(load_dialogues("train"), tokenizer, 512)
    train_on(model, draw_batches(examples, 8, 80, seed), rate)
    return held_out_loss(model, tokenizer, load_dialogues("test")[:100])


@cache
def _runs() -> list[Run]:
    """Return the recorded runs of the usual steps; the targets as the panel names them."""
    names, runs = {True: ALL, False: QV}, select(load_sweep("lora"), steps=None)
    return [run | {"targets": names[run["targets"] == ALL]} for run in runs]


def _at(task: str, rank: int, alpha: float, targets: str, method: str = "lora") -> list[Run]:
    """Return a point's runs at the rate that was best with seed 0, on what is for choosing."""
    wanted = {"task": task, "method": method, "rank": rank, "alpha": alpha, "targets": targets}
    runs = [run for run in _runs() if wanted.items() <= run.items()]
    sign, score = {"voice": (1, "validation_loss"), "facts": (-1, "recall_validation")}[task]
    first = [(sign * run[score], run["learning_rate"]) for run in runs if run["seed"] == 0]
    _, best = min(first, default=(0, 0))  # of two equal ones the lower rate
    return [run for run in runs if run["learning_rate"] == best]


def recorded(
    task: str, rank: int, alpha: float, targets: str = ALL, method: str = "lora"
) -> Mean | None:
    """Return the recorded result of a point over the seeds, or nothing."""
    runs = _at(task, rank, alpha, targets, method)
    return over_seeds(runs, "rank", RESULTS[task])[rank] if runs else None


def over_ranks(task: str, targets: str = ALL, result: str = "") -> Mapping[int, Mean]:
    """Return a recorded result over the ranks, with alpha twice the rank."""
    ranks = sorted({run["rank"] for run in _runs() if run["rank"]})
    runs = [run for rank in ranks for run in _at(task, rank, 2 * rank, targets)]
    return over_seeds(runs, "rank", result or RESULTS[task])


def _count(model: str, rank: int, alpha: float, targets: str) -> list[str]:
    """Return what the adapter costs on the small model, and on one that people use."""
    numbers = {name: adapter_count(name, rank, targets) for name in ("embedded", model)}
    share = {name: numbers[name] / parameter_count(load_shape(name)) for name in numbers}
    states = predict_memory(_config(model, rank, targets)).optimizer
    return [
        f"small model: {numbers['embedded']:,} numbers are trained, {share['embedded']:.1%} of it; "
        f"scaling {alpha / rank:g}",
        f"{model}: {numbers[model]:,} numbers, {share[model]:.2%} of it; a file of "
        f"{show_bytes(2 * numbers[model])} in 16 bits, optimizer states {show_bytes(states)}",
    ]


def _config(model: str, rank: int, targets: str) -> FinetuneConfig:
    names = ALL if targets == ALL else tuple(targets.split(", "))
    return FinetuneConfig(model=model, method="lora", rank=rank, target_modules=names)


def adapter_count(model: str, rank: int, targets: str = ALL) -> int:
    """Return how many numbers an adapter trains: rank times (inputs + outputs) for each module."""
    shape = load_shape(model)
    names = adapted_modules(_config(model, rank, targets), shape.linears)
    return shape.num_hidden_layers * rank * sum(sum(shape.linears[name]) for name in names)
