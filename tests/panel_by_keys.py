"""A panel in JupyterLab, moved as somebody without a mouse moves it; for test_browser.py."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

FOCUSABLE = "select, input, button, .noUi-handle, .widget-readout[contenteditable=true]"
REST = 60  # milliseconds, in which a page draws
SECONDS = 60  # a button that trains takes some
# What a learner sees of the panel, without the controls; the HTML also holds the sentences below.
SEEN = """panel => {
    const view = panel.lastElementChild;
    const [text, image] = ['.ft-text', '.ft-img'].map(name => view.querySelector(name));
    const drawn = image && image.complete && image.naturalWidth > 0;
    return {
        html: view.innerHTML, text: text.innerText, picture: image?.src ?? '', drawn,
        alt: image?.alt ?? '', said: view.querySelector('[role=status]').innerText,
    };
}"""
# The control that has the keyboard: what it is, what it is set to, and how the eye finds it.
FOCUSED = """panel => {
    const it = document.activeElement;
    if (!panel.contains(it)) return null;
    const box = it.closest('button, .widget-inline-hbox');
    const labels = box.tagName === 'BUTTON' ? [box] : [...box.querySelectorAll('label')];
    const name = labels.map(each => each.innerText).join(' ').trim();
    const kind = it.matches('.noUi-handle') ? 'slider' : it.matches('.widget-readout') ? 'number'
        : it.tagName === 'SELECT' ? 'menu' : it.tagName === 'BUTTON' ? 'button' : 'box';
    const value = kind === 'slider' ? it.getAttribute('aria-valuenow')
        : kind === 'number' ? it.innerText : kind === 'box' ? String(it.checked)
        : kind === 'menu' ? String(it.selectedIndex) : '';
    const place = it.getBoundingClientRect();
    return {name, kind, value, x: place.x, y: place.y + place.height / 2};
}"""
LOOKS = """it => {
    const style = getComputedStyle(it);
    return [style.outline, style.boxShadow, style.border, style.background].join();
}"""
IDLE = """() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status
    === 'idle'"""
KEYS = {"slider": ("ArrowRight", "ArrowLeft"), "menu": ("ArrowDown", "ArrowUp")}
KEYS |= {"box": ("Space", "Space")}


@dataclass(frozen=True)
class Answer:
    """What happened after one move: the control's value, the panel before and after it."""

    value: str
    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float


class PanelByKeys:
    """The first panel of the lesson that a page shows."""

    def __init__(self, page: Any) -> None:
        """Wait until the panel is drawn."""
        self.page = page
        drawn = page.locator(".widget-vbox", has=page.locator(".ft-img")).first
        drawn.evaluate("panel => { panel.id = 'by-keys'; }")
        self.box = page.locator("#by-keys")  # also when it refuses its values, without a picture
        self.rest()

    def see(self) -> dict[str, Any]:
        """Return text, picture, its text alternative, and what a screen reader says of a move."""
        return self.box.evaluate(SEEN)

    def focused(self) -> dict[str, Any] | None:
        """Return what has the keyboard, or nothing if it is outside of the panel."""
        return self.box.evaluate(FOCUSED)

    def rest(self) -> None:
        """Wait until the kernel has nothing to do and the page has drawn all of it."""
        self.page.wait_for_function(IDLE, timeout=1000 * SECONDS)
        self.page.wait_for_timeout(REST)
        self.page.wait_for_function(IDLE, timeout=1000 * SECONDS)

    def stops(self) -> Iterator[dict[str, Any]]:
        """Go from the first control to the last with Tab, and yield each."""
        self.box.locator(FOCUSABLE).first.focus()
        while (stop := self.focused()) is not None:
            yield stop
            self.page.keyboard.press("Tab")

    def focus(self, number: int) -> None:
        """Give the keyboard to the control with this number, counted as ``stops`` counts."""
        self.enabled().nth(number).focus()

    def shows_focus(self, number: int) -> bool:
        """Whether the control with this number looks otherwise while it has the keyboard."""
        control = self.enabled().nth(number)
        control.blur()
        self.page.wait_for_timeout(REST)
        looks = control.evaluate(LOOKS)
        self.focus(number)
        self.page.wait_for_timeout(REST)
        return control.evaluate(LOOKS) != looks

    def enabled(self) -> Any:
        """Return the controls that Tab comes to."""
        return self.box.locator(f":is({FOCUSABLE}):not(:disabled)")

    def press(self, key: str) -> Answer | None:
        """Press a key; return the panel's answer, or nothing if the control did not move.

        Raises TimeoutError if it moved and the panel says nothing.
        """
        before, was = self.see(), self.focused()
        begin = time.monotonic()
        self.page.keyboard.press(key)
        now = self.focused()
        if was["kind"] in KEYS and was["value"] == now["value"]:
            return None
        changed = "([panel, old]) => panel.lastElementChild.innerHTML !== old"
        arguments = [self.box.element_handle(), before["html"]]
        self.page.wait_for_function(changed, arg=arguments, timeout=1000 * SECONDS)
        seconds = time.monotonic() - begin
        self.rest()
        return Answer(now and now["value"], before, self.see(), seconds)

    def type_number(self, text: str) -> Answer | None:
        """Type a number into a slider's field, as its value."""
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)
        return self.press("Enter")

    def walk(self) -> list[Answer]:
        """Move the control that has the keyboard until text or picture follow, then back.

        At an end it turns, so all values of a control that changes nothing are tried.
        """
        kind = self.focused()["kind"]
        answers: list[Answer] = []
        for there, back in [KEYS[kind], KEYS[kind][::-1]]:
            steps = 0
            while answer := self.press(there):
                answers.append(answer)
                steps += 1
                if follows(answer) or (kind == "box" and steps == 2):
                    break
            for _ in range(steps):
                answers += filter(None, [self.press(back)])
            if any(map(follows, answers)):
                break
        return answers


def follows(answer: Answer) -> bool:
    """Whether text or picture changed."""
    return any(answer.before[what] != answer.after[what] for what in ("text", "picture"))


def in_reading_order(stops: list[dict[str, Any]]) -> bool:
    """Whether each stop is to the right of the one before it, or below it."""
    return all(b["y"] > a["y"] + 12 or (b["x"] > a["x"]) for a, b in pairwise(stops))
