"""The lessons in a browser, as a learner meets them: cells run, and a panel answers.

Lesson 00 runs whole. Of the others only the panel runs here, because nbval runs all of their cells:
lesson 04's great panel by the README's command, and all of them in CI.

Skipped without Chromium, playwright or JupyterLab, unless FTCOURSE_REQUIRE_BROWSER=1, which makes
it fail.
"""

import importlib.util
import json
import os
from pathlib import Path

import browser
import pytest
from cases import some_of

from ftcourse.handout import fingerprint

ROOT = Path(__file__).parent.parent
LATER = sorted(ROOT.glob("notebooks/*.ipynb"))[1:]
PICTURES = ROOT / "build"  # for people; not compared

RUN_ALL = """() => {
    window.ftcourseDone = false;
    window.jupyterapp.commands.execute('notebook:run-all-cells')
        .finally(() => { window.ftcourseDone = true; });
}"""
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
# Run the set-up cell and the one that shows the panel, which needs no other.
RUN_PANEL = """async () => {
    const app = window.jupyterapp, opened = app.shell.currentWidget, notebook = opened.content;
    await Promise.all([app.restored, opened.revealed, opened.sessionContext.ready]);
    const source = cell => cell.model.sharedModel.source;
    const cells = notebook.widgets.filter(cell => cell.model.type === 'code');
    for (const cell of [cells[0], cells.find(cell => /_panel\\(/.test(source(cell)))]) {
        notebook.activeCellIndex = notebook.widgets.indexOf(cell);
        await app.commands.execute('notebook:run-cell');
    }
}"""
DRAWN = "image => image.complete && image.naturalWidth > 0"


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
def page(chromium, request):
    """Keep a picture of the page's end."""
    with browser.page(1200, 900) as page:
        yield page
        PICTURES.mkdir(exist_ok=True)
        page.screenshot(path=PICTURES / f"{request.node.name}.png")


@pytest.mark.slow
def test_lesson_00_opens_unanswered_runs_in_a_browser_and_its_panel_answers(lab, page, folder):
    page.goto(lab)
    page.wait_for_function(browser.READY)
    cells = page.evaluate(CELLS)
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["run"]] == []
    assert any("guess_voice = ...  #" in cell["source"] for cell in cells)

    lesson = folder / "lessons" / "00_start_here.ipynb"
    handed_out = fingerprint(lesson.read_bytes())
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    assert "language_info" in json.loads(lesson.read_bytes())["metadata"]
    assert fingerprint(lesson.read_bytes()) == handed_out  # saving alone is no change

    page.evaluate(RUN_ALL)
    page.wait_for_function("window.ftcourseDone", timeout=5 * browser.MINUTE)
    cells = page.evaluate(CELLS)
    assert [cell for cell in cells if cell["errors"] or not cell["run"]] == []

    move_a_control(page)


@pytest.mark.parametrize("lesson", some_of(LATER, {LATER[3]}), ids=lambda path: path.stem)
def test_a_later_lesson_opens_in_a_browser_and_its_panel_answers(lesson, lab, page):
    # A workspace of its own: in the common one, JupyterLab would open the lessons before it, too.
    page.goto(
        lab.replace("tree/00_start_here.ipynb", f"workspaces/{lesson.stem}/tree/{lesson.name}")
    )
    page.wait_for_function(browser.READY)
    page.evaluate(RUN_PANEL)
    cells = page.evaluate(CELLS)
    assert [cell for cell in cells if cell["errors"]] == []
    assert sum(cell["run"] for cell in cells) == 2
    move_a_control(page)


def move_a_control(page):
    """Move the first panel's first slider, or its first menu: its text and its picture change."""
    from playwright.sync_api import expect

    panel = page.locator(".widget-vbox", has=page.locator(".ft-img")).first
    text, picture = panel.locator(".ft-text").locator(".."), panel.locator(".ft-img")
    said, drawn = text.inner_text(), picture.get_attribute("src")
    slider, menu = panel.locator(".widget-slider .noUi-handle"), panel.locator("select").first
    if slider.count():
        slider.first.focus()
        page.keyboard.press("ArrowLeft")  # some begin at their right end
    else:
        menu.select_option(index=1 if menu.evaluate("menu => menu.selectedIndex") == 0 else 0)
    expect(text).not_to_have_text(said)
    expect(picture).not_to_have_attribute("src", drawn)
    assert picture.evaluate(DRAWN)
    assert picture.get_attribute("alt")
