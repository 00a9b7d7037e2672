"""A model that several processes share, a shard each (PyTorch's FSDP, through accelerate)."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import Trainer


def shard_on_cpus_too() -> None:
    """Let accelerate shard a model over CPUs, if it was launched with ``--use_fsdp``.

    It reads FSDP's choices for cards only (``AcceleratorState``); on CPUs it would run DDP without
    a word. Has to be called just before a Trainer makes its Accelerator.
    """
    state = PartialState._shared_state
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if sharded and state.get("distributed_type") == DistributedType.MULTI_CPU:
        state["distributed_type"] = DistributedType.MULTI_GPU


def gather_whole(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """Return the weights of a sharded model, whole, in the first process; else None."""
    if not trainer.is_fsdp_enabled:
        return None
    model, once = trainer.model, {name for name, _ in trainer.model.named_parameters()}
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - once
    whole = trainer.accelerator.get_state_dict(model)
    return {name: tensor for name, tensor in whole.items() if name not in tied}
