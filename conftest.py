"""The quiet environment of the lessons, for every test run from the root and all kernels it starts.

A lesson's output is compared with what is stored, so nothing may print that depends on the time,
the network or the reader. ``tests/store_notebooks.py`` runs this file for the same environment.
"""

import os
import tempfile

SCRATCH = tempfile.TemporaryDirectory(prefix="ftcourse-tests-")  # gone when Python ends
QUIET = {
    "FTCOURSE_CACHE": f"{SCRATCH.name}/cache",  # what an older version left there proves nothing
    "FTCOURSE_PROGRESS": f"{SCRATCH.name}/progress.json",  # the reader's own is never touched
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "IPYTHONDIR": SCRATCH.name,  # no start-up files of the reader's
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve each other on a busy machine
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
os.environ.update(QUIET)
