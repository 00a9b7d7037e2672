"""The lessons in a browser, as a learner meets them: cells run, and a panel answers.

Each lesson runs whole (``-m whole``, ``.ci/run browser``), and every control of its panel is moved
by keys, also without the other cells (``-m extra``). The README's command opens two lessons and
runs their panels, because nbval runs all the cells.

Skipped without Chromium, playwright or JupyterLab, unless FTCOURSE_REQUIRE_BROWSER=1, which makes
it fail. Pictures of all panels land in ``build/panels``, for people; they are not compared.
"""

import importlib.util
import json
import os
from itertools import product
from pathlib import Path

import browser
import pytest
from panel_by_keys import PanelByKeys, follows, in_reading_order

from ftcourse.handout import fingerprint

ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
PICTURES = ROOT / "build" / "panels"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
WIDTHS = (1280, 800)
HEIGHT = 1500  # every panel is lower
SILENT = {"order", "question"}  # of lesson 07: only its button asks the model
# Fields of numbers beside sliders. Those of a SelectionSlider take the keyboard and ignore it: the
# choices are its slider's, and ipywidgets makes the field.
NUMBERS = {"length (words)", "overlap (words)", "k (passages)"}

# For each code cell its source, whether it was run, its outputs, and the errors among them.
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .map(widget => widget.model.toJSON())
    .filter(cell => cell.cell_type === 'code')
    .map(cell => ({
        source: [cell.source].flat().join(''),
        run: cell.execution_count !== null,
        outputs: cell.outputs.length,
        errors: cell.outputs.filter(output => output.output_type === 'error'),
    }))"""
RUN_ALL = """() => {
    window.ftcourseDone = false;
    window.jupyterapp.commands.execute('notebook:run-all-cells')
        .finally(() => { window.ftcourseDone = true; });
}"""
CHANGE_THEME = """theme => window.jupyterapp.commands.execute(
    'apputils:change-theme', {theme})"""
# What is cut: labels and menus whose text needs more room, and anything wider than the page.
CUT = """panel => {
    const wide = each => each.scrollWidth > each.clientWidth + 1;
    const pen = document.createElement('canvas').getContext('2d'), arrow = 24;
    const short = menu => {
        pen.font = getComputedStyle(menu).font;
        return pen.measureText(menu.selectedOptions[0].text).width + arrow > menu.clientWidth;
    };
    const cut = [...panel.querySelectorAll('label, .widget-label, button, .ft-text')].filter(wide);
    cut.push(...[...panel.querySelectorAll('select')].filter(short));
    const page = panel.closest('.jp-OutputArea-output');
    return [...cut.map(each => each.innerText), ...(wide(page) ? ['wider than the page'] : [])];
}"""


@pytest.fixture(scope="module")
def chromium():
    """Skip the tests where no browser can run."""
    needs = {"chromium": browser.CHROMIUM}
    needs |= {name: importlib.util.find_spec(name) for name in ("playwright", "jupyterlab")}
    if missing := [name for name, found in needs.items() if not found]:
        required = os.environ.get("FTCOURSE_REQUIRE_BROWSER") == "1"
        (pytest.fail if required else pytest.skip)(f"the browser test needs {missing}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(chromium, folder):
    with browser.lab(folder) as address:
        yield address


@pytest.fixture
def page(chromium):
    """Yield a page; it must have no error in its console, and no request that fails."""
    with browser.page(WIDTHS[0], HEIGHT) as page:
        errors = browser.watch(page)
        yield page
    assert errors == []


def panel_of(page, lab, lesson, command=browser.RUN_PANEL):
    browser.open_lesson(page, lab, lesson)
    page.evaluate(command)
    if command == RUN_ALL:
        page.wait_for_function("window.ftcourseDone", timeout=10 * browser.MINUTE)
    return PanelByKeys(page)


@pytest.mark.slow
def test_lesson_00_opens_unanswered_saving_is_no_change_and_its_panel_answers(lab, page, folder):
    browser.open_lesson(page, lab, LESSONS[0])
    cells = page.evaluate(CELLS)
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["run"]] == []
    assert any("guess_voice = ...  #" in cell["source"] for cell in cells)

    lesson = folder / "lessons" / LESSONS[0]
    handed_out = fingerprint(lesson.read_bytes())
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    assert "language_info" in json.loads(lesson.read_bytes())["metadata"]
    assert fingerprint(lesson.read_bytes()) == handed_out  # saving alone is no change

    page.evaluate(browser.RUN_PANEL)
    move_one_slider(PanelByKeys(page))


@pytest.mark.slow
def test_the_great_panel_answers(lab, page):
    panel = panel_of(page, lab, LESSONS[4])
    cells = page.evaluate(CELLS)
    assert [cell for cell in cells if cell["errors"]] == []
    assert sum(cell["run"] for cell in cells) == 2
    move_one_slider(panel)


def move_one_slider(panel):
    panel.box.locator(".noUi-handle").first.focus()
    answer = panel.press("ArrowLeft")
    assert answer.before["text"] != answer.after["text"]
    assert answer.before["picture"] != answer.after["picture"]
    assert answer.after["drawn"]
    assert answer.after["alt"]


@pytest.mark.whole
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_whole_and_every_control_of_its_panel_answers_to_keys(lesson, lab, page):
    panel = panel_of(page, lab, lesson, RUN_ALL)
    cells = page.evaluate(CELLS)
    assert [cell for cell in cells if cell["errors"] or not cell["run"]] == []
    answers_to_keys(page, panel, lesson)


@pytest.mark.extra
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_control_of_a_panel_answers_to_keys_without_the_other_cells(lesson, lab, page):
    panel = panel_of(page, lab, lesson)
    assert [cell for cell in page.evaluate(CELLS) if cell["errors"]] == []
    answers_to_keys(page, panel, lesson)


def answers_to_keys(page, panel, lesson):
    """Go through all controls with Tab, move each, press reset, and keep pictures."""
    text = panel.see()["text"]
    stops = list(panel.stops())
    assert [stop["name"] for stop in stops if not stop["name"]] == []
    assert in_reading_order(stops)
    for number, stop in enumerate(stops):
        move(panel, stop["name"], stop["kind"], number)
    reset(panel, stops, text)
    take_pictures(page, panel, lesson)
    assert browser.violations(page) == []


def move(panel, name, kind, number):
    """Move the control with this number: text or picture follow, and say what changed."""
    panel.focus(number)
    assert (panel.focused()["name"], panel.focused()["kind"]) == (name, kind)
    assert panel.shows_focus(number), name
    if name == "reset" or (kind == "number" and name not in NUMBERS):
        return
    if kind == "number":
        value = panel.focused()["value"]
        answers = [panel.type_number(text) for text in ("5", value)]
    else:
        answers = [panel.press("Enter")] if kind == "button" else panel.walk()
    assert answers, name
    for answer in answers:
        assert "Traceback" not in answer.after["html"], name
        assert answer.after["drawn"] or "  do:  " in answer.after["text"], name
    if name in SILENT:
        assert all("text and picture stay" in answer.after["said"] for answer in answers)
    elif kind != "button" and not any(map(follows, answers)):  # a button's answer may stand below
        assert all(answer.after["said"] != answer.after["text"] for answer in answers), name


def reset(panel, stops, text):
    """Move a control and press reset: every control is where it was."""
    panel.focus(0)
    assert panel.press("ArrowDown") or panel.press("ArrowUp")
    panel.box.get_by_role("button", name="reset").focus()
    after = panel.press("Enter").after
    assert [stop["value"] for stop in panel.stops()] == [stop["value"] for stop in stops]
    assert after["text"].startswith(text)  # below it may stand what a button added to this state


def take_pictures(page, panel, lesson):
    """Keep the panel at both widths in both themes; nothing is cut in any."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    cut = set()
    for width, (theme, name) in product(WIDTHS, THEMES.items()):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.evaluate(CHANGE_THEME, name)
        page.wait_for_timeout(500)  # the theme's style sheet loads, and the menus fade
        panel.box.scroll_into_view_if_needed()
        panel.box.screenshot(path=PICTURES / f"{Path(lesson).stem}_{width}_{theme}.png")
        cut |= {f"{width}: {text}" for text in panel.box.evaluate(CUT)}
    assert cut == set()
