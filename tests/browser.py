"""A real ``ftcourse lab`` and a headless Chromium, for test_browser.py and make_pictures.py."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
TOKEN = "only-for-this-test"
MINUTE = 60_000  # milliseconds, as Playwright counts

OFFLINE = [
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
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
# Of ipywidgets 8.1.0 in JupyterLab 4.6.0, for each HTML widget: it asks for a MathJax that is older.
FOREIGN = ["Cannot read properties of undefined (reading 'Queue')"]
# Of each rule of axe, elements that break it and that ipywidgets makes: its sliders have no name.
IPYWIDGETS = {"aria-input-field-name": ["noUi-handle"]}
READY = """() => window.jupyterapp
    ?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"""


@contextmanager
def lab(folder: Path) -> Iterator[str]:
    """Start ``ftcourse lab`` on a folder of its own and yield the address of lesson 00."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "config"
    settings.mkdir()
    (settings / "jupyter_lab_config.py").write_text(
        "c.LabApp.expose_app_in_browser = True\n", encoding="utf-8"
    )
    home = {"HOME": str(folder), "JUPYTER_CONFIG_DIR": str(settings), "JUPYTER_TOKEN": TOKEN}
    command = [sys.executable, "-m", "ftcourse", "lab", str(folder / "lessons")]
    with open(folder / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [*command, "--no-browser", "--port", str(port)],
            env=os.environ | home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, folder / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/00_start_here.ipynb?token={TOKEN}"
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels before it goes
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + 180  # a busy machine takes long
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"ftcourse lab did not answer:\n{log.read_text(encoding='utf-8')}")


def can_sandbox() -> bool:
    """Whether Chromium's own sandbox can start: not for root, nor where Ubuntu gives it no room."""
    room = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    held_back = room.exists() and room.read_text(encoding="utf-8").strip() != "0"
    return not held_back and not (hasattr(os, "geteuid") and os.geteuid() == 0)


@contextmanager
def page(width: int, height: int) -> Iterator[Any]:
    """Open a page of a browser that reaches this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=can_sandbox(), args=OFFLINE
        )
        opened = browser.new_page(viewport={"width": width, "height": height})
        opened.set_default_timeout(MINUTE)
        yield opened
        browser.close()


def open_lesson(page: Any, address: str, name: str) -> None:
    """Open a lesson in a workspace of its own, which shows no other; wait for its kernel.

    ``address`` is that of lesson 00, from ``lab``; ``name`` is a file.
    """
    stem = name.partition(".")[0]
    page.goto(address.replace("tree/00_start_here.ipynb", f"workspaces/{stem}/tree/{name}"))
    page.wait_for_function(READY)
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")


def watch(page: Any) -> list[str]:
    """Return a list that grows by each error of the page: in its console, its code, its requests.

    FOREIGN is left out.
    """
    errors: list[str] = []

    def add(text: str) -> None:
        if not any(known in text for known in FOREIGN):
            errors.append(text)

    page.on("console", lambda message: message.type == "error" and add(message.text))
    page.on("pageerror", lambda error: add(str(error)))
    page.on("requestfailed", lambda request: add(f"{request.failure}: {request.url}"))
    return errors


def violations(page: Any) -> list[str]:
    """Return what axe finds in the outputs of a lesson, in the theme that is on.

    Serious and critical only. IPYWIDGETS is left out: the package makes those elements.
    """
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"]}
    found = Axe().run(page, context=".jp-OutputArea-output", options=options).response
    return [
        f"{each['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
        if not any(known in node["html"] for known in IPYWIDGETS.get(each["id"], ()))
    ]
