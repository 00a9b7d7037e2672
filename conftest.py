"""The quiet environment of the lessons, for every test run from the root and all kernels it starts.

A lesson's output is compared with what is stored, so nothing may print that depends on the time,
the network or the reader. ``tests/store_notebooks.py`` runs this file for the same environment.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# Each worker of pytest-xdist, and so each kernel that it starts, has a folder of its own, which is
# gone when Python ends.
OFFLINE = str(Path(__file__).parent / "tests" / "offline")
SCRATCH = tempfile.TemporaryDirectory(prefix="ftcourse-tests-")
QUIET = {
    "FTCOURSE_CACHE": f"{SCRATCH.name}/cache",  # what an older version left there proves nothing
    "FTCOURSE_PROGRESS": f"{SCRATCH.name}/progress.json",  # the reader's own is never touched
    "FTCOURSE_NETWORK_LOG": f"{SCRATCH.name}/network.log",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "IPYTHONDIR": SCRATCH.name,  # no start-up files of the reader's
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve each other on a busy machine
    # No process that a test starts may leave this machine: see tests/offline/no_network.py.
    "PYTHONPATH": os.pathsep.join(filter(None, [OFFLINE, os.environ.get("PYTHONPATH")])),
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
if WORKERS > 1:  # they share the cores
    QUIET["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // WORKERS))
os.environ.update(QUIET)
sys.path.insert(0, OFFLINE)
import no_network  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Fail a test that tried to leave this machine, also if nobody saw the error."""
    yield
    if found := list(no_network.attempts()):
        pytest.fail("\n".join(found), pytrace=False)


def pytest_collection_modifyitems(items):
    """Mark lessons and extra tests as slow, and begin with the slow files, the lessons first.

    So no worker starts a long file when the others are nearly done.
    """
    for item in items:
        if item.path.suffix == ".ipynb" or item.get_closest_marker("extra"):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.path not in slow))
