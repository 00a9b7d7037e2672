"""The panel of lesson 08: somebody's needs, and the way of answering that the table recommends."""

from math import inf
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from ftcourse.config import field_docs
from ftcourse.decision import Decision, decide
from ftcourse.hardware import CARDS, GIB
from ftcourse.needs import NEEDED, Needs
from ftcourse.plots.which_one import plot_arms
from ftcourse.shape.hub import named_shapes
from ftcourse.which_one import Table, load_table
from ftcourse.widgets.panel import Panel, Values

LATENCY = {"no limit": inf, "20 ms": 20, "50 ms": 50, "100 ms": 100, "1 s": 1000}
HOURS = {"nothing": 0, "1 min": 1 / 60, "1 h": 1, "24 h": 24, "no limit": inf}
GROUPS = {
    "The answers": ["voice", "latency"],
    "The facts": ["facts", "changes", "secrecy", "strangers"],
    "What there is": ["pages", "letters", "hours", "model", "card"],
}
WORDS = field_docs(Needs) | {"card": "The device that has to hold training and answers."}


def which_one_panel(table: Table | None = None, model: str = "embedded", card: str = "T4") -> Panel:
    """Return a panel that begins with mild needs, on the recorded table or on another one."""
    table = table or load_table()
    menus: dict[str, Any] = {need: [*choices] for need, choices in NEEDED.items()}
    menus |= {"latency": [*LATENCY.items()], "hours": [*HOURS.items()]}
    menus["model"] = [*dict.fromkeys([model, "embedded", *named_shapes()])]
    menus["card"] = [(f"{name}, {c.memory / GIB:.1f} GiB", name) for name, c in CARDS.items()]
    start = vars(Needs(model=model)) | {"card": card}
    controls: dict[str, ipywidgets.Widget] = {
        name: ipywidgets.Dropdown(options=menus[name], value=start[name], description=name)
        for names in GROUPS.values()
        for name in names
    }

    def choose(card: str, **needs: Any) -> Decision:
        return decide(Needs(**needs), table, card)

    def draw(**values: Any) -> tuple[Axes | str, ...]:
        found = choose(**values)
        rows = [f"{name}: {' against '.join(both)}" for name, *both in found.rows]
        picture = plot_arms(table, best=found.arm, dropped=found.dropped)
        return picture, f"{found.lead}\n{'; '.join(rows)}", *found.notes

    def change(before: Values, after: Values) -> str:
        old, new = (choose(**values).arm or "no arm" for values in (before, after))
        return f"still {new}" if old == new else f"{new} instead of {old}"

    return Panel(draw, controls, "Which one should I use?", None, WORDS, change, GROUPS)
