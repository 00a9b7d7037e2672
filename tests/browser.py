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
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"ftcourse lab did not answer:\n{log.read_text(encoding='utf-8')}")


@contextmanager
def page(width: int, height: int) -> Iterator[Any]:
    """Open a page of a browser that reaches this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=not root, args=OFFLINE
        )
        opened = browser.new_page(viewport={"width": width, "height": height})
        opened.set_default_timeout(MINUTE)
        yield opened
        browser.close()
