"""What can end a run early, with what to do: a full disk, and a loss that is no number."""

import errno
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves
from transformers import Trainer, TrainerCallback

from ftcourse.errors import CourseError
from ftcourse.memory import show_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("No space left", "os error 28", "os error 27", "os error 122", "Disk quota")
_WRITER = ("PytorchStreamWriter", "unexpected pos", "iostream error", "file write failed")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that of a full disk.

    torch and safetensors write with code of their own, which gives only words.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error) for words in (*_FULL_WORDS, *_WRITER)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explained_disk(folder: Path) -> Iterator[list[Callable[[], int]]]:
    """Turn a full disk into an error that says how much is missing.

    Gives a list: what is added to it says how many bytes are to be written.
    """
    needs = [lambda: 2**20]  # what a run writes before it trains
    try:
        yield needs
    except CourseError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        size = needs[-1]()
        more = f"{show_bytes(size - free)} are missing" if size > free else "a file may not grow"
        raise CourseError(
            "A run has room on the disk for its checkpoints and for what it trained.",
            f"{folder}: about {show_bytes(size)} are to be written, {show_bytes(free)} are free: "
            f"{more}",
            "Make room, then call it again: it goes on from the last whole checkpoint. "
            "Or give an output_dir on another disk.",
        ) from error


def checkpoint_bytes(trainer: Trainer) -> int:
    """Return about how many bytes a checkpoint takes: what is trained, and the optimizer."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    states = getattr(trainer.optimizer, "state", {})
    tensors = [*trained, *filter(torch.is_tensor, tree_leaves(list(states.values())))]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class StopWithoutLoss(TrainerCallback):
    """Ends a run whose loss is no number any more, before its checkpoint is written."""

    def on_log(self, args, state, control, logs, **_):
        """Look at the loss of each step, and at its gradient."""
        loss, slope = (float(logs.get(name, 0)) for name in ("loss", "grad_norm"))
        loss = float(logs.get("eval_loss", loss))
        scaled = args.fp16  # the scaler of float16 tries steps that are too large, and skips them
        if math.isfinite(loss) and (scaled or math.isfinite(slope)):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        if state.global_step <= 1:
            do = "At the first step it is the model or the data: are the base weights numbers?"
        else:
            do = "Use a lower learning_rate, in another output_dir: that is the usual cause."
            do += " In float16, try bfloat16 or float32." * scaled
        raise CourseError(
            "The loss of each step is a number.",
            f"step {state.global_step}: a {what} of {loss if what == 'loss' else slope}",
            f"{do} Checkpoints from before are kept.",
        )
