"""The panel that weighs a run's bytes against a card's memory."""

from collections.abc import Callable
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.fit import verdict
from ftcourse.hardware import CARDS, Card
from ftcourse.memory import predict_memory
from ftcourse.plots import plot_memory
from ftcourse.shape import named_shapes
from ftcourse.widgets.panel import Panel


def memory_panel(model: str = "llama-3.1-8b", card: str | Card = "T4") -> Panel:
    """Return a panel that predicts a run's memory and says whether it fits the card.

    ``card`` is a name in ``hardware.CARDS``, or a Card such as ``hardware.detect()`` returns.
    """
    if isinstance(card, str) and card not in CARDS:
        names = ", ".join(CARDS)
        raise CourseError("card is a Card or the name of one.", repr(card), f"Use one of {names}.")
    cards = CARDS if isinstance(card, str) else {card.name: card} | CARDS

    def draw(card: str, **choices: Any) -> tuple[Axes, str]:
        breakdown = predict_memory(FinetuneConfig(**choices), card=cards[card])
        text = verdict(breakdown, card, cards[card].memory)
        return plot_memory(breakdown, capacity=cards[card].memory), text

    controls = _controls(model, list(cards), card if isinstance(card, str) else card.name)
    _link(controls, "bits", lambda method: method != "qlora")  # the others do not quantize
    _link(controls, "rank", lambda method: method == "full")  # and this one has no adapter
    return Panel(draw, controls, "Does it fit?")


def _controls(model: str, cards: list[str], card: str) -> dict[str, ipywidgets.Widget]:
    """Return the controls, each named after the field of FinetuneConfig that it sets."""
    start = vars(FinetuneConfig(model=model)) | {"card": card}
    models = dict.fromkeys([model, "embedded", *named_shapes()])  # the first may be a Hub id
    menus = {
        "model": list(models),
        "card": cards,
        "method": ["full", "lora", "qlora"],
        "bits": [4, 8],
        "dtype": ["auto", "float32", "float16", "bfloat16"],
        "loss": ["full", "chunked"],
    }
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
    """Disable a control while the chosen method makes no use of it."""
    ipywidgets.dlink((controls["method"], "value"), (controls[name], "disabled"), idle)
