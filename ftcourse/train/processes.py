"""Several processes that train one model together: the first one writes, and the others follow.

``accelerate launch`` and ``torchrun`` start them. Each sees its own part of the data; in each step
their gradients are averaged. Each holds the whole model (PyTorch's DDP), or a shard (FSDP).
"""

import atexit
import os
import warnings
from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import distributed

from ftcourse.hardware import detect

T = TypeVar("T")


def join_processes() -> int:
    """Meet the other processes, if a launcher started several; return how many there are.

    Warns if accelerate was asked for several and started one: with ``--cpu`` it does, without a
    word (huggingface/accelerate, issue 2741), and then a step has the rows of one process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        alone = "WORLD_SIZE" not in os.environ and "ACCELERATE_USE_CPU" in os.environ
        if alone and "MASTER_ADDR" in os.environ:  # accelerate sets it for several only
            warnings.warn(
                "accelerate launch was asked for several processes and started one, as it does "
                "with --cpu. So one process trains, with batch_size rows a step. For two, use "
                "torchrun --nproc-per-node 2 -m ftcourse ..., or accelerate launch --multi_gpu "
                "--num_processes 2, which starts two on CPUs as well.",
                stacklevel=2,
            )
        return 1
    is_new, group = not distributed.is_initialized(), PartialState(cpu=detect().device == "cpu")
    if is_new and group.backend == "gloo":  # its threads abort Python; NCCL's end waits for all
        atexit.register(group.destroy_process_group)
    return group.num_processes


def is_first() -> bool:
    """Whether this process is the one that writes, and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    if join_processes() > 1:
        PartialState().wait_for_everyone()


def from_first(work: Callable[[], T]) -> T:
    """Let the first process do something while the others wait; return its result in all of them.

    Where it fails, the first process raises the error, and the others end without a word.
    """
    if join_processes() == 1:
        return work()
    found, error = None, None
    if is_first():
        try:
            found = work()
        except Exception as caught:
            error = caught
    sent = [(found, str(error or ""))]
    broadcast_object_list(sent)
    if error:
        raise error
    if sent[0][1]:
        raise SystemExit(2)
    return sent[0][0]
