"""Make the pictures of README.md: lesson 00 and its panel, as ``ftcourse lab`` shows them.

Run ``python tests/make_pictures.py`` from the root; it needs Chromium. It runs the cells down to
the panel, which takes seconds, and trains nothing.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import browser

PAGES = Path(__file__).parent.parent / "pages"
WIDTH, HEIGHT, MARGIN = 1000, 720, 4  # pixels
# Put the cursor on the cell that shows the panel, and run all cells above and this one.
RUN_TO_PANEL = """async () => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.findIndex(
        cell => cell.model.sharedModel.source.includes('memory_panel('));
    await app.commands.execute('notebook:run-all-above');
    await app.commands.execute('notebook:run-cell');
}"""
HIDE_FILES = "() => window.jupyterapp.shell.collapseLeft()"
TO_TOP = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = 0;
    notebook.node.querySelector('.jp-WindowedPanel-outer')?.scrollTo(0, 0);
}"""


def make(page) -> None:
    """Take both pictures on a page that shows lesson 00."""
    page.wait_for_function(browser.READY)
    page.evaluate(HIDE_FILES)
    page.evaluate(RUN_TO_PANEL)
    panel = page.locator(".widget-vbox", has=page.locator(".ft-img")).first
    missing = WIDTH - 2 * MARGIN - panel.bounding_box()["width"]
    page.set_viewport_size({"width": round(WIDTH + missing), "height": HEIGHT})
    panel.scroll_into_view_if_needed()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # scrolling and drawing come to rest
    box = panel.bounding_box()
    clip = {"x": box["x"] - MARGIN, "y": box["y"], "width": WIDTH, "height": box["height"]}
    page.screenshot(path=PAGES / "panel.png", clip=clip)
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.evaluate(TO_TOP)
    page.wait_for_timeout(1000)
    page.screenshot(path=PAGES / "lesson_00.png")


if __name__ == "__main__":
    with (
        TemporaryDirectory() as folder,
        browser.lab(Path(folder)) as address,
        browser.page(WIDTH, HEIGHT) as page,
    ):
        page.goto(address)
        make(page)
