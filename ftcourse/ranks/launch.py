"""A real run of several processes, each of which measures what it holds in memory.

``run_ranks`` starts ``accelerate launch``, which starts the processes; each calls ``finetune``.
"""

import atexit
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from tqdm.auto import tqdm

from ftcourse.chat import bars_are_off
from ftcourse.config import FinetuneConfig, check_run
from ftcourse.config_file import write_config
from ftcourse.data import Record, as_records
from ftcourse.errors import CourseError
from ftcourse.files import write_whole
from ftcourse.memory import MemoryBreakdown
from ftcourse.memory.communication import Sent, Traffic, in_a_ring
from ftcourse.memory.ledger import Ledger, Row
from ftcourse.memory.units import Ranks, as_ranks
from ftcourse.ranks.process import DATA, RUN, STEPS

_LAUNCH = ("-m", "accelerate.commands.launch", "--num_machines", "1", "--main_process_port", "0")
_LAUNCH += ("--mixed_precision", "no")  # the Trainer says it, not what accelerate's own file says
_FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
_FSDP += ("--fsdp_cpu_ram_efficient_loading", "false", "--fsdp_state_dict_type", "FULL_STATE_DICT")

_HIDDEN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of another launcher


@dataclass(frozen=True)
class RanksResult:
    """What a run of several processes did, and what each of them held."""

    losses: list[float]
    """One a step: the mean over the tokens of all processes."""
    ranks: list[MemoryBreakdown]
    """The live bytes of each process at the fullest moment of its second step."""
    traffic: Traffic
    """What one process sent in that step, by the sizes of what was really exchanged."""
    command: str
    """The command line that ran."""
    world_size: int
    """How many processes there were, as they themselves counted."""
    seconds: float
    """From the launch to the end, with the loading of libraries."""
    output_dir: Path
    """The folder with what was trained."""


def run_ranks(
    config: FinetuneConfig,
    records: Sequence[Record],
    world_size: int = 2,
    sharding: str = "fsdp",
    output_dir: str | Path | None = None,
    timeout: float = 600,
) -> RanksResult:
    """Train with so many processes, which accelerate starts here, and measure each.

    Each takes ``batch_size`` records a step. They run on as many GPUs, or on the CPU where there
    are fewer. Without ``output_dir`` what was trained is deleted when Python ends. Raises
    CourseError with the last lines of a process that fails; then its log is kept.
    """
    check_run(config)
    ranks = as_ranks(config, world_size, sharding)
    if sharding == "hybrid" or config.max_steps < 2:
        raise CourseError(
            "A run of two steps or more is measured here, with ddp or fsdp.",
            f"sharding={sharding!r}, max_steps={config.max_steps}",
            "Use sharding='fsdp' and max_steps=10.",
        )
    folder = Path(tempfile.mkdtemp(prefix="ftcourse-ranks-"))
    lines = map(json.dumps, as_records(records))
    write_whole(folder / DATA, "\n".join(lines))
    output_dir = output_dir or folder / "run"
    write_config(folder / RUN, config, folder / DATA, output_dir)
    command = [sys.executable, *_LAUNCH, *_choices(ranks), "-m", "ftcourse.ranks", str(folder)]
    start = time.perf_counter()
    _wait(command, folder, config.max_steps, world_size, timeout)
    seconds = time.perf_counter() - start
    found = [_read(file) for file in sorted(folder.glob("rank*.json"))]
    if [each["world_size"] for each in found] != [world_size] * world_size:
        must = "accelerate starts as many processes as it is asked for."
        raise CourseError(must, f"{len(found)} of {world_size}", f"Read {folder / 'log'}.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return RanksResult(
        losses=found[0]["losses"],
        ranks=[_as_breakdown(each["breakdown"], ranks) for each in found],
        traffic=_as_traffic(found[0]["collectives"], ranks),
        command=shlex.join(["python", *command[1:]]),
        world_size=found[0]["world_size"],
        seconds=seconds,
        output_dir=Path(output_dir),
    )


def _as_traffic(collectives: list[tuple[str, int]], ranks: Ranks) -> Traffic:
    """Return what was exchanged as what one process sends in a ring."""
    rows = []
    for name in dict.fromkeys(each for each, _ in collectives):
        sizes = [size for each, size in collectives if each == name]
        times = 2 if name == "all-reduce" else 1
        sent = sum(times * in_a_ring(size, ranks.world_size) for size in sizes)
        rows.append(Sent(name, "measured", sent, len(sizes)))
    return Traffic(tuple(rows))


def _choices(ranks: Ranks) -> list[str]:
    """Return what accelerate is told of the ranks."""
    found = ["--num_processes", str(ranks.world_size)]
    if ranks.world_size > 1:
        found += ["--multi_gpu"] if ranks.shards == 1 else _FSDP
    return found


def _wait(command: list[str], folder: Path, steps: int, ranks: int, timeout: float) -> None:
    """Run the launcher to its end, with a bar; whatever happens, no process is left behind."""
    variables = {k: v for k, v in os.environ.items() if k not in _HIDDEN}
    variables |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": variables.get("OMP_NUM_THREADS", "1")}
    if sys.platform == "linux":
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    if torch.cuda.device_count() < ranks:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    deadline, done = time.monotonic() + timeout, folder / STEPS
    bar = tqdm(total=steps, desc=f"{ranks} processes", disable=bars_are_off())
    with (folder / "log").open("wb") as log, bar:
        launcher = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        try:
            while launcher.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
                _move(bar, done)
        finally:
            _end(launcher)
        _move(bar, done)
    if launcher.returncode:
        raise _failed(folder, launcher.returncode, time.monotonic() > deadline)


def _move(bar: tqdm, done: Path) -> None:
    """Move a bar to the steps that are done."""
    steps = done.stat().st_size if done.exists() else 0
    if steps > bar.n:
        bar.update(steps - bar.n)


def _end(launcher: subprocess.Popen) -> None:
    """End a launcher that still runs, with the processes that it started."""
    if launcher.poll() is None:
        for process in psutil.Process(launcher.pid).children(recursive=True):
            process.kill()
        launcher.kill()
        launcher.wait()


def _failed(folder: Path, code: int, late: bool) -> CourseError:
    """Return the error of the first process that failed, or of the launcher, or of the time."""
    for file in sorted(folder.glob("error*")):
        return CourseError(*json.loads(file.read_text(encoding="utf-8")))
    log = folder / "log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else "no log is left"
    last = [line for line in text.splitlines() if line.strip()][-5:]
    end = "out of time" if late else f"exit code {code}"
    do = f"Read {log}, or try it with world_size=1."
    return CourseError("Every process of a run ends well.", "\n".join([end, *last]), do)


def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def _as_breakdown(found: dict, ranks: Ranks) -> MemoryBreakdown:
    rows = [Row(**row | {"shape": tuple(row["shape"])}) for row in found.pop("ledger")]
    facts = {"ledger": Ledger(rows)}
    if ranks.world_size > 1:
        facts |= {"world_size": ranks.world_size, "sharding": ranks.sharding}
    return MemoryBreakdown(**found | facts)
