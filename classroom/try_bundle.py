"""Try a bundle as a learner without a network will: install, doctor, lessons, first cells.

Run ``python classroom/try_bundle.py BUNDLE``. On Linux all of it runs where there is no network but
loopback (``unshare --user --net``), and the first thing tried is that nothing else answers. It
prints the seconds of each step, and ends with 1 if one of them fails.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

UP_AND_RUNNING = 0x1 | 0x40  # flags of an interface, from Linux's if.h
SET_FLAGS = 0x8914
CELLS = """
import nbformat
from nbclient import NotebookClient

lesson = nbformat.read("mine/00_start_here.ipynb", as_version=4)
last = next(i for i, cell in enumerate(lesson.cells) if cell.id == "start-step")
lesson.cells = lesson.cells[: last + 1]
NotebookClient(lesson, resources={"metadata": {"path": "mine"}}, timeout=600).execute()
print(sum(cell.cell_type == "code" for cell in lesson.cells), "cells of lesson 00 ran;",
      lesson.cells[-1].outputs[-1].data["text/plain"])
"""


def without_network(bundle: str) -> int:
    """Run this script again where only loopback is, if the system allows it."""
    inside = [sys.executable, __file__, bundle, "--inside"]
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*apart, "true"]).returncode == 0:
        return subprocess.run([*apart, *inside, "--apart"]).returncode
    print("This system has no unshare: turn the network off yourself. Going on.", file=sys.stderr)
    return subprocess.run(inside).returncode


def bring_up_loopback() -> None:
    """Switch the new network's loopback on, as kernels need it; it begins switched off."""
    import fcntl  # Linux only

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))


def reaches_out() -> bool:
    """Return whether an address outside of this machine answers, or a name is found."""
    for what in (("1.1.1.1", 443), ("pypi.org", 443)):
        try:
            socket.create_connection(what, timeout=5).close()
            return True
        except OSError:
            continue
    return False


def step(name: str, *command: str) -> None:
    """Run one step in the working folder; say how long it took, or stop."""
    begin = time.monotonic()
    code = subprocess.run(command).returncode
    said = "ok" if code == 0 else f"FAILED ({code})"
    print(f"== {name}: {said}, {time.monotonic() - begin:.0f} s", flush=True)
    if code:
        sys.exit(1)


def inside(bundle: Path) -> None:
    """Do what a learner does, in a new folder with a new home, with no variable of ours."""
    if reaches_out():
        print("== there is a network here: this proves less")
    else:
        print("== no network: nothing outside of this machine answers")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in [name for name in os.environ if name.startswith(("PIP_", "PYTHON", "HF_"))]:
            del os.environ[name]
        os.environ["HOME"] = folder
        step("install and doctor", sys.executable, str(bundle / "install.py"), "venv")
        places = Path("venv/bin/python").absolute(), Path("venv/Scripts/python.exe").absolute()
        python = str(next(place for place in places if place.exists()))
        step("lessons", python, "-m", "ftcourse", "lab", "mine", "--copy-only")
        step("first cells", python, "-c", CELLS)
        size = sum(p.lstat().st_size for p in Path("venv").rglob("*") if p.is_file())
        print(f"== installed: {size / 1e9:.1f} GB")


if __name__ == "__main__":
    if "--inside" in sys.argv:
        if "--apart" in sys.argv:
            bring_up_loopback()
        inside(Path(sys.argv[1]).resolve())
    else:
        sys.exit(without_network(sys.argv[1]))
