"""One class for every panel: controls, and a view that is drawn again whenever one of them moves.

It uses only what ipywidgets 7 and 8 share, and needs no ``Output``: the view is one HTML string.
"""

import base64
import traceback
import warnings
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftcourse.errors import CourseError
from ftcourse.plots import png

Draw = Callable[..., tuple[Figure | Axes, str]]
_DPI = 96


class Panel(ipywidgets.VBox):
    """Controls above a view, which holds what ``draw`` returns for their values.

    ``draw`` gets the controls' values by name and returns a picture and a text. Move a control
    from code with ``panel.controls["rank"].value = 64`` and read ``panel.text``.
    """

    def __init__(self, draw: Draw, controls: Mapping[str, ipywidgets.Widget], title: str):
        """Lay out the controls, watch them, and draw once."""
        self.controls, self.title, self.text = dict(controls), title, ""
        self._draw, self._view = draw, ipywidgets.HTML()
        for control in self.controls.values():
            control.layout.width = "290px"
            control.style.description_width = "100px"
            control.observe(self._redraw, names="value")
        heading = ipywidgets.HTML(f"<b>{escape(title)}</b>")
        row = ipywidgets.Box([*self.controls.values()], layout={"flex_flow": "row wrap"})
        super().__init__(children=[heading, row, self._view])
        self._redraw()

    def __repr__(self) -> str:
        """Name the panel; a page without a kernel shows this in its place."""
        return f"<Panel: {self.title} Run this cell to move its controls.>"

    def _redraw(self, _change: Any = None) -> None:
        """Draw again, with the warnings and errors of the drawing in the view."""
        values = {name: control.value for name, control in self.controls.items()}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.text, html = _attempt(self._draw, values)
        notes = [f"Note: {warning.message}" for warning in caught]
        self.text = "\n".join([self.text, *notes])
        self._view.value = html + "".join(f"<p>{escape(note)}</p>" for note in notes)


def _attempt(draw: Draw, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text and the HTML of a drawing, or of the error that it raised."""
    try:
        picture, text = draw(**values)
        return text, _paragraph(text) + _image(picture, getattr(picture, "alt", text))
    except CourseError as error:
        return str(error), _paragraph(str(error))
    except Exception as error:  # an error in an observer would vanish into the log
        text = f"{type(error).__name__}: {error}"
        return text, _paragraph(text) + f"<pre>{escape(traceback.format_exc())}</pre>"


def _paragraph(text: str) -> str:
    return f'<p class="ft-text" style="white-space: pre-wrap; font-weight: bold">{escape(text)}</p>'


def _image(picture: Figure | Axes, alt: str) -> str:
    data = base64.b64encode(png(picture, _DPI)).decode()
    source = f"data:image/png;base64,{data}"
    return f'<img class="ft-img" style="max-width: 100%" alt="{escape(alt)}" src="{source}">'
