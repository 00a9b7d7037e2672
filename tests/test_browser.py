"""Lesson 00 as a learner meets it: ``ftcourse lab``, a browser, all cells, one slider.

Skipped without Chromium, playwright or JupyterLab, unless FTCOURSE_REQUIRE_BROWSER=1, which makes
it fail.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "build" / "lesson_00.png"  # for people to look at; nothing compares it
CHROMIUM = shutil.which("chromium")
TOKEN = "only-for-this-test"
MINUTE = 60_000  # milliseconds, as Playwright counts
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0  # Windows has no such user

OFFLINE = [
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

READY = """() => window.jupyterapp
    ?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"""
RUN_ALL = """() => {
    window.ftcourseDone = false;
    window.jupyterapp.commands.execute('notebook:run-all-cells')
        .finally(() => { window.ftcourseDone = true; });
}"""
# For each code cell its source, whether it was run, and the errors among its outputs.
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .map(widget => widget.model.toJSON())
    .filter(cell => cell.cell_type === 'code')
    .map(cell => ({
        source: [cell.source].flat().join(''),
        run: cell.execution_count !== null,
        errors: cell.outputs.filter(output => output.output_type === 'error'),
    }))"""
DRAWN = "image => image.complete && image.naturalWidth > 0"


@pytest.fixture
def chromium():
    """Return the path of Chromium, or skip the test where it cannot run."""
    needs = {"chromium": CHROMIUM}
    needs |= {name: importlib.util.find_spec(name) for name in ("playwright", "jupyterlab")}
    if missing := [name for name, found in needs.items() if not found]:
        required = os.environ.get("FTCOURSE_REQUIRE_BROWSER") == "1"
        (pytest.fail if required else pytest.skip)(f"the browser test needs {missing}")
    return CHROMIUM


@pytest.fixture
def lab(chromium, tmp_path):
    """Start ``ftcourse lab`` on a folder of its own and return the lesson's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = tmp_path / "config"
    settings.mkdir()
    (settings / "jupyter_lab_config.py").write_text(
        "c.LabApp.expose_app_in_browser = True\n", encoding="utf-8"
    )
    home = {"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(settings), "JUPYTER_TOKEN": TOKEN}
    command = [sys.executable, "-m", "ftcourse.cli", "lab", str(tmp_path / "lessons")]
    with open(tmp_path / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [*command, "--no-browser", "--port", str(port)],
            env=os.environ | home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, tmp_path / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/00_start_here.ipynb?token={TOKEN}"
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels before it goes
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_for(url, server, log):
    """Wait until a server answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"ftcourse lab did not answer:\n{log.read_text(encoding='utf-8')}")


@pytest.fixture
def page(chromium):
    """Open a page of a browser that reaches this machine only; keep a picture of its end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, chromium_sandbox=not IS_ROOT, args=OFFLINE
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(MINUTE)
        yield page
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE)
        browser.close()


@pytest.mark.slow
def test_lesson_00_runs_in_a_browser_and_its_panel_answers(lab, page):
    from playwright.sync_api import expect

    page.goto(lab)
    page.wait_for_function(READY)
    page.evaluate(RUN_ALL)
    page.wait_for_function("window.ftcourseDone", timeout=5 * MINUTE)
    cells = page.evaluate(CELLS)
    assert cells
    assert [cell for cell in cells if cell["errors"] or not cell["run"]] == []

    panel = page.locator(".widget-vbox", has=page.locator(".ft-img")).first
    text, picture = panel.locator(".ft-text"), panel.locator(".ft-img")
    said, drawn = text.inner_text(), picture.get_attribute("src")
    panel.locator(".widget-slider .noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    expect(text).not_to_have_text(said)
    expect(picture).not_to_have_attribute("src", drawn)
    assert picture.evaluate(DRAWN)
    assert picture.get_attribute("alt")
