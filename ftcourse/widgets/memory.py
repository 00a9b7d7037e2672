"""The panel that compares a run's bytes with a card's memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_type_hints

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import CARDS, GIB, Card, detect
from ftcourse.memory import MemoryBreakdown, predict_memory, show_bytes
from ftcourse.memory.fit import difference, judge_fit, refuse_if_too_large
from ftcourse.memory.records import is_card, nearest_record
from ftcourse.plots import plot_memory
from ftcourse.shape.hub import named_shapes
from ftcourse.widgets.panel import Panel

CPU_LIMIT = GIB
"""Bytes of the largest step that the panel measures on a CPU: more would take minutes."""

Verb = Callable[[FinetuneConfig, Card], tuple[MemoryBreakdown, str]]
"""Returns a breakdown, and in words how it differs from the prediction."""


def memory_panel(model: str = "llama-3.1-8b", card: str | Card = "T4") -> Panel:
    """Return a panel that predicts a run's memory and says whether it fits the card.

    ``card`` is a name in ``hardware.CARDS``, or a Card such as ``hardware.detect()`` returns. The
    buttons simulate and measure the run. They add bars, which stay until a control moves.
    """
    if isinstance(card, str) and card not in CARDS:
        names = ", ".join(CARDS)
        raise CourseError("card is a Card or the name of one.", repr(card), f"Use one of {names}.")
    cards = CARDS if isinstance(card, str) else {card.name: card} | CARDS
    controls = _controls(model, list(cards), card if isinstance(card, str) else card.name)
    _link(controls, "bits", lambda method: method != "qlora")  # the others do not quantize
    _link(controls, "rank", lambda method: method == "full")  # which has no adapter
    bars = _Bars(cards)
    verbs = {"simulate": _simulate, "measure": _measure}
    actions = {name: partial(bars.add, name, verb) for name, verb in verbs.items()}
    return Panel(bars.predict, controls, "Does it fit?", actions)


class _Bars:
    """What the panel draws: the predicted bar, and the bars that the buttons added."""

    def __init__(self, cards: dict[str, Card]) -> None:
        self.cards = cards
        self.added: dict[str, tuple[list[MemoryBreakdown], str]] = {}

    def predict(self, card: str, **fields: Any) -> tuple[Axes | str, ...]:
        """Draw the predicted bar alone."""
        self.added = {}
        return self._draw(card, FinetuneConfig(**fields))

    def add(self, name: str, verb: Verb, card: str, **fields: Any) -> tuple[Axes | str, ...]:
        """Draw one more bar, or say why there is none."""
        config = FinetuneConfig(**fields)
        try:
            bar, words = verb(config, self.cards[card])
            self.added[name] = [bar], words
        except CourseError as error:
            self.added[name] = [], f"{name}: {error}"
        return self._draw(card, config)

    def _draw(self, name: str, config: FinetuneConfig) -> tuple[Axes | str, ...]:
        card = self.cards[name]
        predicted = predict_memory(config, card)
        bars = [predicted, *(bar for found, _ in self.added.values() for bar in found)]
        words = [str(judge_fit(predicted, card)), *(text for _, text in self.added.values())]
        below = filter(None, [nearest_record(config, card)])
        return plot_memory(bars, capacity=card.memory), "\n".join(words), *map(repr, below)


def _simulate(config: FinetuneConfig, card: Card) -> tuple[MemoryBreakdown, str]:
    from ftcourse.simulate import simulate_memory  # here: it imports torch, and the panel does not

    found = simulate_memory(config, card)
    return found, difference(found, predict_memory(config, card))


def _measure(config: FinetuneConfig, card: Card) -> tuple[MemoryBreakdown, str]:
    """Measure on the device that is there: the chosen card, or a CPU if the step is small."""
    here = detect()
    predicted = predict_memory(config, here)
    if here.device == "cuda" and not is_card(here.name, card):
        raise CourseError(
            "We measure a step on the device that is there, so the chosen card is that one.",
            f"{card.name}; here is {here.name}",
            "Make the panel with card=hardware.detect(), or press simulate.",
        )
    if here.device == "cpu" and predicted.allocated > CPU_LIMIT:
        raise CourseError(
            f"Without a GPU we measure on the CPU, a step below {show_bytes(CPU_LIMIT)}.",
            f"a step of about {show_bytes(predicted.allocated)}",
            "Choose the embedded model or fewer tokens, or press simulate.",
        )
    refuse_if_too_large(config, here)
    from ftcourse.measure import measure_memory  # here: it imports torch

    found = measure_memory(config)
    words = difference(found, predicted)
    if not is_card(here.name, card):
        words += f", against {show_bytes(predicted.allocated)} predicted for {here.name}"
    return found, words


def _controls(model: str, cards: list[str], card: str) -> dict[str, ipywidgets.Widget]:
    """Return the controls, each named after the field of FinetuneConfig that it sets."""
    start = vars(FinetuneConfig(model=model)) | {"card": card}
    models = dict.fromkeys([model, "embedded", *named_shapes()])  # the first may be a Hub id
    words = {name: get_args(hint) for name, hint in get_type_hints(FinetuneConfig).items()}
    named = ("method", "bits", "dtype", "optimizer", "loss")
    menus = {"model": list(models), "card": cards} | {name: words[name] for name in named}
    sliders = {
        "rank": [2**k for k in range(2, 9)],
        "batch_size": list(range(1, 33)),
        "max_length": [2**k for k in range(7, 14)],
    }
    controls = {
        name: kind(options=options, value=start[name], description=name.replace("_", " "))
        for kind, group in ((ipywidgets.Dropdown, menus), (ipywidgets.SelectionSlider, sliders))
        for name, options in group.items()
    }
    checkpointing = ipywidgets.Checkbox(value=True, description="gradient checkpointing")
    return controls | {"gradient_checkpointing": checkpointing}


def _link(controls: dict[str, Any], name: str, idle: Callable[[str], bool]) -> None:
    """Disable a control while the chosen method does not use it."""
    ipywidgets.dlink((controls["method"], "value"), (controls[name], "disabled"), idle)
