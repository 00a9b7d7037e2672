"""One class for every panel: controls, and a view that is drawn again when a control moves.

It uses only what ipywidgets 7 and 8 share, and needs no ``Output``: the view is one HTML string.
"""

import base64
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial
from html import escape
from itertools import chain
from typing import Any

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftcourse.errors import CourseError
from ftcourse.plots import png

Values = dict[str, Any]
Groups = Mapping[str, Collection[str]]
"""Names of controls below a heading, which may be empty."""
Draw = Callable[..., tuple[Figure | Axes | str, ...]]
"""Gets the controls' values by name; returns a picture, a text, and sentences to show below."""
_OLD = "description_tooltip" in ipywidgets.HTML.class_trait_names()
_TOOLTIP = "description_tooltip" if _OLD else "tooltip"  # without one, a page shows "null"
_CHOICES: dict[str, Values] = {}
"""What learners chose, by panel and arguments: where a panel begins when its cell runs again."""


class Panel(ipywidgets.VBox):
    """Controls above a view, which holds what ``draw`` returns for their values.

    Read ``panel.values``, ``panel.text``, and what the last move changed, ``panel.moved``. The text
    of another state is ``panel.text_with(rank=64)``, which moves nothing. An action replaces
    ``draw`` from its button to the next move. ``words`` are a sentence for each control and button;
    ``change`` compares the values before and after a move; ``groups`` are headings with names.
    """

    def __init__(
        self,
        draw: Draw,
        controls: Mapping[str, ipywidgets.Widget],
        title: str,
        actions: Mapping[str, Draw] | None = None,
        words: Mapping[str, str] | None = None,
        change: Callable[[Values, Values], str] = lambda before, after: "",
        groups: Groups | None = None,
    ):
        """Lay out the controls and buttons, watch them, and draw once."""
        self.controls, self.title, self.text, self.moved = dict(controls), title, "", ""
        self._draw, self._change, self._drawn = draw, change, None
        self._words = {"reset": "Move all controls to where the panel began."} | dict(words or {})
        self._start = self.values
        self._choices = _CHOICES.setdefault(f"{title} {self._start}", {})
        presses = {name: partial(self._press, action) for name, action in (actions or {}).items()}
        presses["reset"] = self._reset
        self.buttons = {name: ipywidgets.Button(description=name) for name in presses}
        for name, press in presses.items():
            self.buttons[name].tooltip = self._words.get(name, name)
            self.buttons[name].on_click(press)
        for name, control in self.controls.items():
            self._watch(name, control)
        heading = ipywidgets.HTML(f"<b>{escape(title)}</b>", **{_TOOLTIP: ""})
        self._view = ipywidgets.HTML(**{_TOOLTIP: ""})
        rows = chain(*(self._lay(*group) for group in (groups or {"": self.controls}).items()))
        super().__init__([heading, *rows, ipywidgets.HBox([*self.buttons.values()]), self._view])
        self._show(draw)

    def _lay(self, heading: str, names: Collection[str]) -> list[ipywidgets.Widget]:
        """Return a group of controls in a grid, below its heading if it has one."""
        grid = {"grid_template_columns": "repeat(auto-fill, minmax(285px, 1fr))"}
        grid |= {"grid_gap": "2px 14px", "max_width": "960px"}  # three of them in a row
        box = ipywidgets.GridBox([self.controls[name] for name in names], layout=grid)
        words = ipywidgets.HTML(f"<i>{escape(heading)}</i>", **{_TOOLTIP: ""})
        return [words, box] if heading else [box]

    def __repr__(self) -> str:
        """Return the panel's name, which a page without a kernel shows instead of the panel."""
        return f"<Panel: {self.title} Run this cell to move its controls.>"

    @property
    def values(self) -> Values:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def text_with(self, **values: Any) -> str:
        """Return the text of the state where the panel began, with other values; nothing moves."""
        return _attempt(self._draw, self._start | values)[0]

    def _watch(self, name: str, control: ipywidgets.Widget) -> None:
        """Set a control to where the learner left it, and follow it from there."""
        label = "145px" if hasattr(control, "readout") else "80px"  # a slider's has a unit
        control.layout.width, control.style.description_width = "auto", label
        setattr(control, _TOOLTIP, self._words.get(name, ""))
        control.value = self._choices.get(name, control.value)
        control.observe(partial(self._move, name), names="value")
        receive = control.set_state  # only the front end calls it, so code makes no choice

        def receive_choice(state: Values) -> None:
            receive(state)
            self._choices[name] = control.value

        control.set_state = receive_choice

    def _move(self, name: str, moved: Mapping[str, Any]) -> None:
        """Draw again, and say what the move changed."""
        names = {"True": "on", "False": "off"}
        old, new = (names.get(str(moved[end]), moved[end]) for end in ("old", "new"))
        with warnings.catch_warnings(action="ignore"):  # the drawing has the same
            change = self._change(self.values | {name: moved["old"]}, self.values)
        move = f"{name.replace('_', ' ')} {old} to {new}"
        self._show(self._draw, move, change, self._words.get(name, ""))

    def _press(self, action: Draw, button: ipywidgets.Button) -> None:
        """Draw with an action, which may be slow; meanwhile everything is disabled."""
        enabled = [each for each in (self.controls | self.buttons).values() if not each.disabled]
        try:
            for widget in enabled:
                widget.disabled = True
            self._view.value += _paragraph(f"{button.description}: working ...")
            self._show(action)
        finally:
            for widget in enabled:
                widget.disabled = False

    def _reset(self, _: ipywidgets.Button) -> None:
        """Move all controls to where the panel began, and forget the learner's choices."""
        self._choices.clear()
        with self._view.hold_sync():  # only the last drawing is sent
            for name, value in self._start.items():
                self.controls[name].value = value
            self._show(self._draw)

    def _show(self, draw: Draw, move: str = "", change: str = "", why: str = "") -> None:
        """Draw again, and say below the text what a move changed, and that nothing did."""
        before, self._drawn = self._drawn, _attempt(draw, self.values)
        self.text, picture, below = self._drawn
        change = change or ("text and picture stay" if move and before == self._drawn else "")
        self.moved = f"{move}: {change}. {why}".strip() if change else ""
        first, line, rest = escape(self.text).partition("\n")
        text = f'<p class="ft-text" style="white-space: pre-wrap"><b>{first}</b>{line}{rest}</p>'
        said = f'<div role="status">{text}{_paragraph(self.moved) if self.moved else ""}</div>'
        view = said + picture + "".join(map(_paragraph, below))  # a screen reader says the first
        self._view.value = f'<div style="line-height: 1.5">{view}</div>'


def _attempt(draw: Draw, values: Values) -> tuple[str, str, list[str]]:
    """Return a drawing's text, picture and sentences below, or the text of the error it raised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            picture, text, *below = draw(**values)
            data = base64.b64encode(png(picture, dpi=96)).decode()
            words = f'alt="{escape(getattr(picture, "alt", text))}" style="max-width: 100%"'
            image = f'<img class="ft-img" {words} src="data:image/png;base64,{data}">'
        except CourseError as error:
            text, image, below = str(error), "", []
        except Exception as error:  # an error in an observer would vanish into the log
            text, below = f"{type(error).__name__}: {error}", []
            image = f"<pre>{escape(traceback.format_exc())}</pre>"
    notes = dict.fromkeys(f"Note: {warning.message}" for warning in caught)
    return "\n".join([text, *notes]), image, below


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"
