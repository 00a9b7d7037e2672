"""Every live byte while real code runs: the birth and the death of each tensor, and its name."""

import re
import weakref
from bisect import bisect_right
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import _get_sequence_nr as next_node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ftcourse.memory.ledger import History, Row

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


class LiveBytes(TorchDispatchMode):
    """Follows the bytes of every tensor that an operation returns, from its birth to its death.

    On any device it counts what ``torch.cuda.memory_allocated`` counts, but for the scratch memory
    inside kernels. Views share their storage and count once. ``history`` holds births and deaths.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Start with nothing alive on the device to watch."""
        super().__init__()
        self.device = device
        self.history = History()
        self.makes = "activations"
        self.modules = ModulePaths()
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation; note what it made, and what it used and we had not yet seen."""
        out = func(*args, **(kwargs or {}))
        made = "overhead" if "dequantize" in func.name() else self.makes
        for leaf in tree_leaves((args, kwargs)):
            self._see(leaf, "overhead", "batch")
        for leaf in tree_leaves(out):
            self._see(leaf, made, self.modules.here())
        return out

    def _see(self, leaf: Any, part: str, name: str) -> None:
        """Count a tensor if it is on the device and new."""
        here = isinstance(leaf, Tensor) and leaf.device.type == self.device
        if here and leaf.untyped_storage()._cdata not in self._alive:
            self.note(leaf, part, name)

    def note(self, tensor: Tensor, part: str, name: str) -> None:
        """Count a tensor's storage from now on, or call it by another part and name."""
        storage = tensor.untyped_storage()
        number = self._alive.get(storage._cdata)
        if number is None:
            number = self.history.born(Row(name, (), "", part, storage.nbytes()))
            self._alive[storage._cdata] = number
            weakref.finalize(storage, self._died, storage._cdata, number)
        row = replace(self.history.rows[number], name=name, part=part)
        self.history.rows[number] = _shaped(row, tensor)

    def _died(self, address: int, number: int) -> None:
        self._alive.pop(address, None)
        self.history.died(number)

    def note_residents(self, model: nn.Module, optimizer: Any) -> None:
        """Count the tensors that live through every step."""
        for state in filter(torch.is_tensor, tree_leaves(list(optimizer.state.values()))):
            self.note(state, "optimizer", "optimizer")
        for path, parameter in model.named_parameters():
            name, state = plain(path), getattr(parameter, "quant_state", None)
            self.note(parameter, "weights", name)
            self._note_all(state, "weights", name)
            self._note_all(getattr(state, "state2", None), "weights", f"{name}.state2")
            self._note_all(optimizer.state.get(parameter), "optimizer", name)
        for path, module in model.named_modules():  # an 8-bit module keeps its weight and constants
            for name, end in (("CB", ""), ("SCB", ".SCB")):
                if torch.is_tensor(value := getattr(getattr(module, "state", None), name, None)):
                    self.note(value, "weights", f"{plain(path)}.weight{end}")
        for path, buffer in model.named_buffers():
            self.note(buffer, "overhead", plain(path))

    def _note_all(self, holder: Any, part: str, path: str) -> None:
        """Count the tensors of an object or a dictionary, but not what 8-bit states share."""
        values = holder if isinstance(holder, dict) else vars(holder) if holder else {}
        for name, value in values.items():
            if torch.is_tensor(value) and not name.startswith("qmap"):
                self.note(value, part, f"{path}.{name}")

    def follow(self, model: nn.Module) -> list[RemovableHandle]:
        """Return hooks that name the model's tensors after the modules that make them."""
        paths = {module: plain(path) for path, module in model.named_modules()}

        def leave(module: nn.Module, _: tuple, out: Any) -> None:
            self.modules.leave()
            for tensor in filter(torch.is_tensor, tree_leaves(out)):
                number = self._alive.get(tensor.untyped_storage()._cdata)
                if number and self.history.rows[number].name == paths[module]:
                    self.history.rows[number] = _shaped(self.history.rows[number], tensor)

        enter = self.modules.enter
        hooks = [m.register_forward_pre_hook(lambda m, _: enter(paths[m])) for m in paths]
        hooks += [module.register_forward_hook(leave, always_call=True) for module in paths]
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                note = partial(self._note_gradient, plain(path))
                hooks.append(parameter.register_post_accumulate_grad_hook(note))
        return hooks

    def _note_gradient(self, name: str, parameter: Tensor) -> None:
        self.note(parameter.grad, "gradients", name)


class ModulePaths:
    """Where in a model the code is: in the forward pass, or in the backward pass of what."""

    def __init__(self) -> None:
        """Start outside of the model."""
        self._stack: list[str] = []
        self._left = ""
        self._starts, self._paths = [0], [""]  # from which autograd node on, and where

    def enter(self, path: str) -> None:
        """Note that a module's forward pass begins."""
        self._stack.append(path)
        self._note()

    def leave(self) -> None:
        """Note that it ends."""
        self._left = self._stack.pop()
        self._note()

    def _note(self) -> None:
        if torch._C._current_graph_task_id() != -1:
            return  # a forward pass inside of the backward pass makes no nodes that run
        self._starts.append(next_node())
        self._paths.append(self._stack[-1] if self._stack else "")

    def here(self) -> str:
        """Return the module at work, in the backward pass the one that made the node."""
        if self._stack:
            return self._stack[-1] or "loss"
        node = torch._C._current_autograd_node()
        if node is None:
            return "step"
        if torch.is_grad_enabled():  # a checkpointed layer runs again, without its own hooks
            return self._left.rpartition(".")[0] or "loss"
        made = self._paths[bisect_right(self._starts, node._sequence_nr()) - 1]
        return f"{made or 'loss'} (backward)"


def plain(path: str) -> str:
    """Return a module's or parameter's path without peft's wrapping, ``*`` for each number.

    >>> plain("base_model.model.model.layers.3.mlp.up_proj.lora_A.default.weight")
    'model.layers.*.mlp.up_proj.lora_A.weight'
    """
    path = re.sub(r"^base_model(\.model(\.|$)|$)|\.base_layer\b|\.default\b", "", path)
    return re.sub(r"\.\d+(?=\.|$)", ".*", path)


def _shaped(row: Row, tensor: Tensor) -> Row:
    return replace(row, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
