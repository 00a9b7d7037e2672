"""A real run of several processes, each of which measures what it holds in memory.

``run_ranks`` starts ``accelerate launch``, which starts the processes; each of them runs this file,
which calls ``finetune``.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path

import psutil
import torch
from torch import Tensor, UntypedStorage, distributed
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves
from tqdm.auto import tqdm
from transformers import TrainerCallback

from ftcourse.chat import bars_are_off
from ftcourse.config import FinetuneConfig, check_run
from ftcourse.config_file import read_config, write_config
from ftcourse.data import Record, as_records, load_records
from ftcourse.errors import CourseError
from ftcourse.files import write_whole
from ftcourse.live import LiveBytes
from ftcourse.measure import MemoryMeter
from ftcourse.memory import MemoryBreakdown
from ftcourse.memory.ledger import Ledger, Row
from ftcourse.memory.units import Ranks, as_ranks
from ftcourse.train import finetune

_LAUNCH = ("-m", "accelerate.commands.launch", "--num_machines", "1", "--main_process_port", "0")
_FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
_FSDP += ("--fsdp_cpu_ram_efficient_loading", "false", "--fsdp_state_dict_type", "FULL_STATE_DICT")
_RUN, _DATA, _STEPS = "run.toml", "data.jsonl", "steps"


@dataclass(frozen=True)
class RanksResult:
    """What a run of several processes did, and what each of them held."""

    losses: list[float]
    """One a step: the mean over the tokens of all processes."""
    ranks: list[MemoryBreakdown]
    """The live bytes of each process at the fullest moment of its second step."""
    command: str
    """The command line that ran."""
    world_size: int
    """How many processes there were, as they themselves counted."""
    seconds: float
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
    are fewer. Raises CourseError with the last lines of a process that fails.
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
    write_whole(folder / _DATA, "\n".join(lines))
    output_dir = output_dir or folder / "run"
    write_config(folder / _RUN, config, folder / _DATA, output_dir)
    command = [sys.executable, *_LAUNCH, *_choices(ranks), "-m", "ftcourse.ranks", str(folder)]
    start = time.perf_counter()
    _wait(command, folder, config.max_steps, world_size, timeout)
    seconds = time.perf_counter() - start
    found = [_read(folder / f"rank{n}.json") for n in range(world_size)]
    return RanksResult(
        losses=found[0]["losses"],
        ranks=[_as_breakdown(each["breakdown"], ranks) for each in found],
        command=shlex.join(["python", *command[1:]]),
        world_size=found[0]["world_size"],
        seconds=seconds,
        output_dir=Path(output_dir),
    )


def _choices(ranks: Ranks) -> list[str]:
    """Return what accelerate is told of the ranks."""
    found = ["--num_processes", str(ranks.world_size)]
    if ranks.world_size > 1:
        found += ["--multi_gpu"] if ranks.shards == 1 else _FSDP
    return found


def _wait(command: list[str], folder: Path, steps: int, ranks: int, timeout: float) -> None:
    """Run the launcher to its end, with a bar; whatever happens, no process is left behind."""
    variables = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    variables |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": variables.get("OMP_NUM_THREADS", "1")}
    if sys.platform == "linux":
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    if torch.cuda.device_count() < ranks:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    deadline, done = time.monotonic() + timeout, folder / _STEPS
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
    text = (folder / "log").read_text(encoding="utf-8", errors="replace")
    last = [line for line in text.splitlines() if line.strip()][-5:]
    end = "out of time" if late else f"exit code {code}"
    do = f"Read {folder / 'log'}, or try it with world_size=1."
    return CourseError("Every process of a run ends well.", "\n".join([end, *last]), do)


def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def _as_breakdown(found: dict, ranks: Ranks) -> MemoryBreakdown:
    rows = [Row(**row | {"shape": tuple(row["shape"])}) for row in found.pop("ledger")]
    facts = {"ledger": Ledger(rows)}
    if ranks.world_size > 1:
        facts |= {"world_size": ranks.world_size, "sharding": ranks.sharding}
    return MemoryBreakdown(**found | facts)


class RankBytes(LiveBytes):
    """Follows the live bytes of a process that trains with others: shards, units, buckets.

    FSDP frees a unit by making its memory empty, and gathers it by making it full again, which no
    operation tells. The operations of ``_NAMES`` tell what a buffer is for.
    """

    _NAMES = {
        "fsdp::all_gather_copy_in": (1, "overhead", "all-gather's buffer"),
        "fsdp::split_with_sizes_copy": ("out", "overhead", "gathered"),
        "fsdp::chunk_cat": ("out", "overhead", "reduce-scatter's buffer"),
        "c10d::_reduce_scatter_base_": (0, "gradients", "shards of gradients"),
        "c10d::allreduce_": (0, "overhead", "DDP's bucket of gradients"),
    }

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Let a sharded tensor become the tensors that it is made of; follow these."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        if func.name().startswith("fsdp::chunk_cat"):  # it gets whole gradients, with their names
            for tensor in args[0]:
                self.note(tensor, "gradients", "gradients of a unit")
        out = super().__torch_dispatch__(func, types, args, kwargs)
        place, *facts = self._NAMES.get(func.name().partition(".")[0], (None,))
        if place is not None:
            named = args[place] if isinstance(place, int) else kwargs[place]
            for tensor in filter(torch.is_tensor, tree_leaves(named)):
                if tensor.numel() > 1:  # the Trainer sums up the loss, too
                    self.note(tensor, *facts)
        return out

    def note(self, tensor: Tensor, part: str, name: str) -> None:
        """Count a tensor; of a sharded one what is here."""
        super().note(getattr(tensor, "_local_tensor", tensor), part, name)

    def _died(self, address: int, number: int) -> None:
        if self._alive.get(address) == number:
            super()._died(address, number)

    @contextmanager
    def following_sizes(self) -> Iterator[None]:
        """Follow memory that becomes empty, or full again."""
        resize = UntypedStorage.resize_

        @wraps(resize)
        def follow(storage: UntypedStorage, size: int) -> None:
            if (number := self._alive.pop(storage._cdata, None)) is not None:
                self.history.died(number)
            resize(storage, size)
            if size:
                row = Row("gathered", (), "", "overhead", size)
                self._alive[storage._cdata] = self.history.born(row)

        UntypedStorage.resize_ = follow
        try:
            yield
        finally:
            UntypedStorage.resize_ = resize


class RankMeter(MemoryMeter):
    """Measures one step of one process among several."""

    tracker = RankBytes

    def on_step_begin(self, args, state, control, **facts):
        """Count what lives already and follow the rest, and memory that changes its size."""
        super().on_step_begin(args, state, control, **facts)
        if state.global_step + 1 == self.step:
            self._open.enter_context(self._live.following_sizes())


class _CountSteps(TrainerCallback):
    """Writes one character a step, for the bar of the process that waits."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_end(self, args, state, control, **_):
        if state.is_world_process_zero:
            with self.file.open("ab") as file:
                file.write(b".")


def _main(folder: Path) -> None:
    """Train as one of the processes; write what was measured, or the error."""
    plan, rank = read_config(folder / _RUN), os.environ.get("RANK", "0")
    meter = RankMeter()
    callbacks = [meter, _CountSteps(folder / _STEPS)]
    try:
        result = finetune(
            plan.config, load_records(plan.data), plan.output_dir, callbacks=callbacks
        )
    except CourseError as error:
        write_whole(folder / f"error{rank}", json.dumps([error.must, error.got, error.do]))
        raise
    found = asdict(replace(meter.breakdown, ledger=()))
    found["ledger"] = [asdict(row) for row in meter.breakdown.ledger]
    together = distributed.get_world_size() if distributed.is_initialized() else 1
    losses = [entry["loss"] for entry in result.history]
    facts = {"losses": losses, "world_size": together, "breakdown": found}
    write_whole(folder / f"rank{rank}.json", json.dumps(facts))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
