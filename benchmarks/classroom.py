"""How many learners one machine bears: seconds and memory of so many kernels at the same time.

Run ``python benchmarks/classroom.py`` on a machine that does nothing else. All kernels of a setting
run the same cells of a lesson at once, up to a mark; then all wait, and their memory is read. Each
setting is measured once, a line of ``data/measured/classroom.jsonl``, and a call that was stopped
goes on. A setting that was measured while others used the cores is measured again, without
``--busy``. ``classroom/make_page.py`` makes the instructor's table, of each from its quietest line.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from tqdm import tqdm

from ftcourse.files import course_path

FILE = Path(__file__).parent.parent / "data" / "measured" / "classroom.jsonl"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "jupyterlab", "ipykernel")
MARKS = {  # lesson: where its kernels wait for each other
    "00_start_here": ("start-load", "start-train"),
    "04_memory": ("memory-changes-run",),
    "07_rag": ("rag-order-live",),
}
OTHERS = list(MARKS)[1:]
MIB = 2**20
Run = dict[str, Any]


QUIET = 0.3  # cores that others may use
STEPS = {"max_steps=120": "max_steps=40"}  # a third of lesson 00's run: its memory is the same


def settings() -> Iterator[Run]:
    """Yield what is measured; ``threads`` 0 leaves their number to torch: one for each core."""
    yield {"lesson": "no lesson", "kernels": 1, "threads": 0}  # the server that each learner has
    for kernels in (1, 4, 8, 2):
        yield {"lesson": "00_start_here", "kernels": kernels, "threads": 1}
        if kernels < 8:
            yield from ({"lesson": name, "kernels": kernels, "threads": 1} for name in OTHERS)
    for kernels, threads in ((4, 0), (4, 16), (1, 0), (1, 16)):  # 16: as on a server with 16 cores
        yield {"lesson": "00_start_here", "kernels": kernels, "threads": threads}


def measure(lesson: str, kernels: int, threads: int) -> Run:
    """Return, for each mark, the seconds that the kernels took to it and their memory there."""
    if lesson == "no lesson":
        return {"marks": {"server": _server()}}
    chosen = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | chosen
    marks, sources = {}, dict(_parts(lesson))
    with ExitStack() as stack, ThreadPoolExecutor(kernels) as pool:
        started = [stack.enter_context(_kernel(env)) for _ in range(kernels)]
        for mark, cells in sources.items():
            seconds = list(pool.map(lambda one, cells=cells: _execute(one[1], cells), started))
            marks[mark] = _spread("seconds", seconds) | _memory([pid for pid, _ in started])
    return {"marks": marks}


def _parts(lesson: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each mark of a lesson with the sources of the cells from the mark before up to it."""
    text = (course_path("notebooks") / f"{lesson}.ipynb").read_text(encoding="utf-8")
    waiting, marks = [], list(MARKS[lesson])
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for long, short in STEPS.items():
                source = source.replace(long, short)
            waiting.append(source)
        if marks and cell["id"] == marks[0]:
            yield marks.pop(0), waiting
            waiting = []


@contextmanager
def _kernel(env: dict[str, str]) -> Iterator[tuple[int, BlockingKernelClient]]:
    """Start a kernel in a folder of its own; yield the number of its process, and a client."""
    with tempfile.TemporaryDirectory() as folder:
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=folder, env=env)
        client = manager.blocking_client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=120)
            yield manager.provisioner.process.pid, client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def _execute(client: BlockingKernelClient, cells: list[str]) -> float:
    """Run cells one after another, and return the seconds from the first to the last."""
    begin = time.monotonic()
    for source in cells:
        reply = client.execute_interactive(source, timeout=1800, output_hook=lambda message: None)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{reply['content'].get('evalue')} in: {source[:200]}")
    return time.monotonic() - begin


def _memory(pids: list[int]) -> Run:
    """Return MiB of processes: ``own`` is what each alone has, ``share`` adds its part of the rest.

    ``own`` is USS and ``share`` is PSS, in which a page that n processes map counts 1/n for each;
    so the shares add up to what all of them take together. Only Linux has PSS.
    """
    found = [psutil.Process(pid).memory_full_info() for pid in pids]
    memory = _spread("own_mib", [each.uss / MIB for each in found])
    if hasattr(found[0], "pss"):
        memory |= _spread("share_mib", [each.pss / MIB for each in found])
    return memory | _spread("resident_mib", [each.rss / MIB for each in found])


def _spread(name: str, values: list[float]) -> Run:
    return {name: [round(f(values), 1) for f in (min, statistics.median, max)]}


def _server() -> Run:
    """Return the memory of a JupyterLab with no kernel, and the seconds until it answers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ftcourse", "lab", f"{folder}/mine", "--no-browser"]
        begin, pipe = time.monotonic(), subprocess.PIPE
        lab = subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        try:
            port = int(next(m[1] for m in map(re.compile(r"1:(\d+)/lab").search, lab.stdout) if m))
            while not _listens(lab.pid, port):
                time.sleep(0.1)
            return _spread("seconds", [time.monotonic() - begin]) | _memory([lab.pid])
        finally:
            lab.terminate()
            lab.wait(timeout=60)


def _listens(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections()
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def machine() -> Run:
    """Return what the seconds depend on; ``busy_cores`` is what others used just before."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "busy_cores": round(psutil.cpu_percent(interval=3) / 100 * psutil.cpu_count(), 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "date": date.today().isoformat(),
    }


def main() -> None:
    """Measure each setting that the file lacks, and add a line for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--busy", action="store_true", help="on a machine that others use, too")
    limit = float("inf") if parser.parse_args().busy else QUIET
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    done = [run for run in map(json.loads, lines) if run["busy_cores"] <= limit]
    waiting = [each for each in settings() if not any(each.items() <= run.items() for run in done)]
    for setting in tqdm(waiting, "classroom"):
        line = json.dumps(setting | machine() | measure(**setting))
        with FILE.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
