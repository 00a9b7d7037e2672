"""The live bytes of one process among several: shards, gathered units, buckets."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from ftcourse.live import LiveBytes, plain
from ftcourse.measure import MemoryMeter
from ftcourse.memory.ledger import Row

_NAMES = {
    "fsdp::all_gather_copy_in": (1, "overhead", "all-gather's buffer"),
    "fsdp::split_with_sizes_copy": ("out", "overhead", "gathered"),
    "fsdp::chunk_cat": ("out", "overhead", "reduce-scatter's buffer"),
    "c10d::_reduce_scatter_base_": (0, "gradients", "shards of gradients"),
    "c10d::allreduce_": (0, "overhead", "DDP's bucket of gradients"),
}
"""Operations: which argument, its part, and what it is for."""
_COLLECTIVES = {
    "c10d::_allgather_base_": (0, "all-gather"),
    "c10d::_reduce_scatter_base_": (1, "reduce-scatter"),
    "c10d::allreduce_": (0, "all-reduce"),
}
"""Operations between processes: which argument is the whole tensor, and what each is called."""
_FEW = 16  # numbers: a loss, a gradients' norm


class RankBytes(LiveBytes):
    """Follows the live bytes of a process that trains with others: shards, units, buckets.

    FSDP frees a unit by making its memory empty, and gathers it by making it full again, which no
    operation tells. The operations of ``_NAMES`` tell what a buffer is for.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Start with nothing alive, and nothing sent."""
        super().__init__(device)
        self.collectives: list[tuple[str, int]] = []
        """What was exchanged: the operation, and the bytes of the whole tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Let a sharded tensor become the tensors that it is made of; follow these."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        if func.name().startswith("fsdp::chunk_cat"):  # it gets whole gradients, with their names
            for tensor in args[0]:
                self.note(tensor, "gradients", "gradients of a unit")
        out = super().__torch_dispatch__(func, types, args, kwargs)
        name = func.name().partition(".")[0]
        place, *facts = _NAMES.get(name, (None,))
        if place is not None:
            for tensor in _large(args[place] if isinstance(place, int) else kwargs[place]):
                self.note(tensor, *facts)
        place, collective = _COLLECTIVES.get(name, (None, ""))
        if place is not None:
            for tensor in _large(args[place]):
                self.collectives.append((collective, tensor.numel() * tensor.element_size()))
        return out

    def note_residents(self, model: nn.Module, optimizer: Any) -> None:
        """Count what stays; a sharded 4-bit weight's constants are in its module."""
        super().note_residents(model, optimizer)
        for path, module in model.named_modules():
            state, name = getattr(module, "quant_state", None), f"{plain(path)}.weight"
            self._note_all(state, "weights", name)
            self._note_all(getattr(state, "state2", None), "weights", f"{name}.state2")

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


def _large(named: Any) -> list[Tensor]:
    """Return the tensors of an argument, but not those of a few numbers, as a loss."""
    tensors = filter(torch.is_tensor, tree_leaves(named))
    return [tensor for tensor in tensors if tensor.numel() > _FEW]


class RankMeter(MemoryMeter):
    """Measures one step of one process among several."""

    tracker = RankBytes

    def on_step_begin(self, args, state, control, **facts):
        """Count what lives already and follow the rest, and memory that changes its size."""
        super().on_step_begin(args, state, control, **facts)
        if state.global_step + 1 == self.step:
            self._open.enter_context(self._live.following_sizes())

    @property
    def collectives(self) -> list[tuple[str, int]]:
        """What the step exchanged: each operation, and the bytes of the whole tensor."""
        return self._live.collectives
