"""Several processes that train one model: really several, one writer, the losses of one process.

Each test starts processes with a launcher, on the CPU.
"""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from filelock import FileLock

from ftcourse.config import FinetuneConfig
from ftcourse.config_file import write_config
from ftcourse.data import load_dialogues
from ftcourse.train import finetune
from ftcourse.train.run import LOCK

pytestmark = pytest.mark.extra  # lesson 09 starts two processes by the README's command
TRAIN, HELD_OUT = load_dialogues("train")[:32], load_dialogues("validation")[:8]
WEIGHTS = "adapter_model.safetensors"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
PORT = ["--main_process_port", "0"]  # any free one
# Python imports a module of this name first, so what it registers runs last.
WITNESS = """
import atexit, os, pathlib, sys
import no_network  # which a file of this name imports in all other tests

def write():
    torch = sys.modules.get("torch")
    if torch and "RANK" in os.environ:
        left = torch.distributed.is_initialized()
        pathlib.Path(__file__).with_name("rank" + os.environ["RANK"]).write_text(str(left))

atexit.register(write)
"""


def config_of(**changes):
    choices = {"method": "lora", "rank": 4, "max_steps": 20, "max_length": 128, "batch_size": 2}
    choices |= {"learning_rate": 5e-3, "gradient_checkpointing": False, "dtype": "float32"}
    return FinetuneConfig(**choices | changes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train", TRAIN), ("held_out", HELD_OUT)):
        text = "\n".join(map(json.dumps, rows))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {"data": folder / "train.jsonl", "validation": folder / "held_out.jsonl"}


def command(launcher, files, folder):
    file = write_config(folder.with_suffix(".toml"), config_of(), output_dir=folder, **files)
    return [*launcher, "-m", "ftcourse", "finetune", "--config", str(file)]


def environment():
    """One thread each, and nothing of a launcher that may have started pytest."""
    hidden = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"OMP_NUM_THREADS": "1"}


def launch(launcher, files, folder, **variables):
    env = environment() | variables
    options = {"capture_output": True, "text": True, "encoding": "utf-8", "env": env}
    return subprocess.run(command(launcher, files, folder), timeout=600, **options)


def run_of(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def losses(history):
    return [(entry["step"], entry["loss"], entry.get("eval_loss", 0.0)) for entry in history]


@pytest.fixture(scope="module")
def two(files, tmp_path_factory):
    """The folder of a run of two processes, and what they printed.

    Beside the folder each process writes, as its last act, whether it is still in the group.
    """
    folder = tmp_path_factory.mktemp("two") / "run"
    (folder.parent / "sitecustomize.py").write_text(WITNESS, encoding="utf-8")
    path = os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])
    return folder, launch(TORCHRUN, files, folder, PYTHONPATH=path.rstrip(os.pathsep))


def test_two_processes_have_the_losses_of_one_with_twice_the_accumulation(two):
    """Up to rounding: the gradients of the halves are added in another order."""
    folder, done = two
    assert done.returncode == 0, done.stderr
    assert run_of(folder)["processes"] == 2
    one = finetune(config_of(gradient_accumulation_steps=2), TRAIN, None, validation=HELD_OUT)
    found = losses(run_of(folder)["history"])
    for ours, theirs in zip(found, losses(one.history), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_one_of_them_speaks_and_one_writes(two):
    folder, done = two
    assert done.stdout.count("saved in") == 1
    assert "on 2 processes" in done.stdout
    names = {path.name for path in folder.glob("checkpoints/checkpoint-20/*")}
    assert {"rng_state_0.pth", "rng_state_1.pth", WEIGHTS} <= names
    listed = json.loads((folder / "checkpoints/checkpoint-20/whole.json").read_bytes())["files"]
    assert set(listed) == names - {"whole.json"}


def test_each_process_has_left_the_group_when_it_ends(two):
    """Else gloo's threads abort it now and then, with the run already saved."""
    folder, _ = two
    left = {path.name: path.read_text(encoding="utf-8") for path in folder.parent.glob("rank*")}
    assert left == {"rank0": "False", "rank1": "False"}


def test_one_process_can_load_what_two_have_trained(two, files):
    folder, _ = two
    before = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
    loaded = finetune(config_of(), TRAIN, folder, validation=HELD_OUT)
    assert (loaded.processes, len(loaded.history)) == (2, 20)
    assert {path: path.read_bytes() for path in before} == before


def kill_all(process):
    """End a launcher and its processes at once, so that none can tidy up."""
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for each in family:
        each.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()


def test_a_killed_run_of_two_goes_on_with_two_and_ends_as_if_never_killed(two, files, tmp_path):
    folder = tmp_path / "run"
    begun = subprocess.Popen(
        command(TORCHRUN, files, folder), env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (folder / "checkpoints" / "checkpoint-10").exists():
        assert time.monotonic() < deadline
        assert begun.poll() is None
        time.sleep(0.02)
    kill_all(begun)
    assert "history" not in run_of(folder)
    alone = launch([sys.executable], files, folder)
    assert alone.returncode == 2
    assert "processes was 2, now 1" in alone.stderr
    assert launch(TORCHRUN, files, folder).returncode == 0
    assert losses(run_of(folder)["history"]) == losses(run_of(two[0])["history"])
    assert (folder / WEIGHTS).read_bytes() == (two[0] / WEIGHTS).read_bytes()


def test_a_folder_in_use_is_refused_once_and_stays_as_it_is(files, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / LOCK):
        done = launch(TORCHRUN, files, folder)
    assert done.returncode != 0
    assert done.stderr.count("One run at a time works in a folder.") == 1
    assert {path.name for path in folder.iterdir()} <= {LOCK}


def test_accelerate_starts_two_on_the_cpu_when_asked_for_several_devices(two, files, tmp_path):
    several = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", *PORT]
    done = launch(several, files, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert run_of(tmp_path / "run")["processes"] == 2
    found, known = (losses(run_of(f)["history"]) for f in (tmp_path / "run", two[0]))
    assert found == known


def test_accelerate_that_starts_one_in_place_of_two_is_said_once(files, tmp_path):
    done = launch([*ACCELERATE, "--cpu", "--num_processes", "2"], files, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("started one, as it does with --cpu") == 1
    assert "processes" not in run_of(tmp_path / "run")
