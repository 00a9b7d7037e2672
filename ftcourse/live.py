"""Every live byte while real code runs: the birth and the death of each tensor."""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ftcourse.memory import PARTS

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


class LiveBytes(TorchDispatchMode):
    """Follows the bytes of every tensor that an operation returns, from its birth to its death.

    On any device this counts what ``torch.cuda.memory_allocated`` counts on a GPU, but for the
    scratch memory inside kernels, of which torch does not tell. Views share their storage and count
    once. ``events`` holds (storage, change in bytes) in order of time.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Start with nothing alive on the device to watch."""
        super().__init__()
        self.device = device
        self.events: list[tuple[int, int]] = []
        self.part_of: dict[int, str] = {}
        self.makes = "activations"
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation; note what it made, and what it used and we had not yet seen."""
        out = func(*args, **(kwargs or {}))
        made = "overhead" if "dequantize" in func.name() else self.makes
        for leaves, part in ((tree_leaves((args, kwargs)), "overhead"), (tree_leaves(out), made)):
            for leaf in leaves:
                if isinstance(leaf, torch.Tensor) and leaf.device.type == self.device:
                    self.note(leaf, part)
        return out

    def note(self, tensor: torch.Tensor, part: str, *, sure: bool = False) -> None:
        """Count a tensor's storage from now on; ``sure`` overrides the part it was given before."""
        storage = tensor.untyped_storage()
        number = self._alive.get(storage._cdata)
        if number is None:
            number = len(self.part_of)
            self._alive[storage._cdata] = number
            self.events.append((number, storage.nbytes()))
            weakref.finalize(storage, self._died, storage._cdata, number, storage.nbytes())
            self.part_of[number] = part
        elif sure:
            self.part_of[number] = part

    def _died(self, address: int, number: int, nbytes: int) -> None:
        self._alive.pop(address, None)
        self.events.append((number, -nbytes))

    def timeline(self) -> list[dict[str, int]]:
        """Return the live bytes of each part after each event."""
        live = dict.fromkeys(PARTS, 0)
        moments = []
        for number, change in self.events:
            live[self.part_of[number]] += change
            moments.append(dict(live))
        return moments


def note_gradients(model: torch.nn.Module, live: LiveBytes) -> list[RemovableHandle]:
    """Return hooks that count the gradient of each trained parameter as one when it is there."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        p.register_post_accumulate_grad_hook(lambda p: live.note(p.grad, "gradients", sure=True))
        for p in trained
    ]


def fullest(timeline: list[dict[str, int]], marks: dict[str, int]) -> dict[str, dict[str, int]]:
    """Return the fullest moment of each stretch of a timeline between two marks."""
    starts = sorted(marks.items(), key=lambda item: item[1])
    ends = [start for _, start in starts[1:]] + [len(timeline)]
    return {
        name: max(timeline[start:end], key=lambda parts: sum(parts.values()))
        for (name, start), end in zip(starts, ends, strict=True)
    }


def resident_tensors(model: torch.nn.Module, optimizer: Any) -> Iterator[tuple[torch.Tensor, str]]:
    """Yield the tensors that live through every step, each with its part."""
    for parameter in model.parameters():
        yield parameter, "weights"
        state = getattr(parameter, "quant_state", None)
        for constants in (state, getattr(state, "state2", None)):
            if constants is not None:
                yield from ((t, "weights") for t in vars(constants).values() if torch.is_tensor(t))
    for module in model.modules():  # an 8-bit module keeps its weight and constants aside
        for name in ("CB", "SCB"):
            if torch.is_tensor(t := getattr(getattr(module, "state", None), name, None)):
                yield t, "weights"
    for leaf in tree_leaves(list(optimizer.state.values())):
        if torch.is_tensor(leaf):
            yield leaf, "optimizer"
    for buffer in model.buffers():
        yield buffer, "overhead"
