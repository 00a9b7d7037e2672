"""One class for every panel: controls, and a view that is drawn again when a control moves.

It uses only what ipywidgets 7 and 8 share, and needs no ``Output``: the view is one HTML string.
"""

import base64
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftcourse.errors import CourseError
from ftcourse.plots import png

Draw = Callable[..., tuple[Figure | Axes | str, ...]]
"""Gets the controls' values by name; returns a picture, a text, and sentences to show below."""
_DPI = 96


class Panel(ipywidgets.VBox):
    """Controls above a view, which holds what ``draw`` returns for their values.

    ``draw`` gets the controls' values by name and returns a picture and a text. Move a control
    from code with ``panel.controls["rank"].value = 64`` and read ``panel.text``. An action replaces
    ``draw`` when its button is pressed, until a control moves.
    """

    def __init__(
        self,
        draw: Draw,
        controls: Mapping[str, ipywidgets.Widget],
        title: str,
        actions: Mapping[str, Draw] | None = None,
    ):
        """Lay out the controls and buttons, watch them, and draw once."""
        self.controls, self.title, self.text = dict(controls), title, ""
        self.buttons = {name: ipywidgets.Button(description=name) for name in actions or {}}
        self._view = ipywidgets.HTML()
        for control in self.controls.values():
            control.layout.width, control.layout.margin = "290px", "2px 18px 2px 2px"
            control.style.description_width = "100px"
            control.observe(lambda _: self._show(draw), names="value")
        for name, button in self.buttons.items():
            button.on_click(partial(self._press, actions[name]))
        heading = ipywidgets.HTML(f"<b>{escape(title)}</b>")
        wrap = {"flex_flow": "row wrap"}
        rows = [self.controls.values(), self.buttons.values()]
        boxes = [ipywidgets.Box([*row], layout=wrap) for row in rows if row]
        super().__init__(children=[heading, *boxes, self._view])
        self._show(draw)

    def __repr__(self) -> str:
        """Return the panel's name, which a page without a kernel shows instead of the panel."""
        return f"<Panel: {self.title} Run this cell to move its controls.>"

    def _press(self, action: Draw, button: ipywidgets.Button) -> None:
        """Draw with an action, which may be slow; meanwhile its button is disabled."""
        button.disabled = True
        self._view.value += _paragraph(f"{button.description}: working ...")
        self._show(action)
        button.disabled = False

    def _show(self, draw: Draw) -> None:
        """Draw again, with the warnings and errors of the drawing in the view."""
        values = {name: control.value for name, control in self.controls.items()}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.text, html = _attempt(draw, values)
        notes = [f"Note: {warning.message}" for warning in caught]
        self.text = "\n".join([self.text, *notes])
        self._view.value = html + "".join(map(_paragraph, notes))


def _attempt(draw: Draw, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text and the HTML of a drawing, or of the error that it raised."""
    try:
        picture, text, *below = draw(**values)
        image = _image(picture, getattr(picture, "alt", text))
        return text, _heading(text) + image + "".join(map(_paragraph, below))
    except CourseError as error:
        return str(error), _heading(str(error))
    except Exception as error:  # an error in an observer would vanish into the log
        text = f"{type(error).__name__}: {error}"
        return text, _heading(text) + f"<pre>{escape(traceback.format_exc())}</pre>"


def _heading(text: str) -> str:
    """Return a text with its first line in bold."""
    first, *rest = escape(text).split("\n")
    lines = "\n".join([f"<b>{first}</b>", *rest])
    return f'<p class="ft-text" style="white-space: pre-wrap">{lines}</p>'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _image(picture: Figure | Axes, alt: str) -> str:
    data = base64.b64encode(png(picture, _DPI)).decode()
    source = f"data:image/png;base64,{data}"
    return f'<img class="ft-img" style="max-width: 100%" alt="{escape(alt)}" src="{source}">'
