"""What a real training step does at each adapted module: formats, gradients, restored weights."""

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ftcourse.errors import CourseError

_SAYS = {  # the operations that a trace tells of
    "gemm_4bit": "product with the codes",
    "mm": "product",
    "addmm": "product",
    "_to_copy": "cast",
    "dequantize_4bit": "weight restored",
    "dequantize_blockwise": "constants restored",
}


@dataclass(frozen=True)
class Visit:
    """What one step did at one adapted module."""

    enters: str  # the format of its inputs
    multiplies: str  # the format of the product with the frozen weight
    passes_on: bool  # whether its input got a gradient
    trained: tuple[str, ...]  # its parameters that got a gradient, each with its format
    operations: tuple[str, ...]  # in order, each with formats and the shape of its result


@dataclass(frozen=True)
class Trace:
    """What a real step did."""

    visits: Mapping[str, Visit]  # by module
    restored: tuple[int, ...]  # living bytes of the weights whose restoring was seen, over time


def trace_step(model: nn.Module, batch: Mapping[str, Tensor]) -> Trace:
    """Run a forward and a backward pass, and watch the adapted modules with hooks.

    It takes peft's model on bitsandbytes' modules, and ours. Gradients that are there are dropped.
    """
    model.zero_grad()
    adapted = {
        name[name.index("layers.") :]: module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and "layers." in name
    }
    if not adapted:
        got = f"a {type(model).__name__} without one"
        raise CourseError("A traced model has an adapter.", got, "Attach an adapter first.")
    watch = _Watch()
    hooks = [hook for name in adapted for hook in watch.follow(name, adapted[name])]
    with watch, warnings.catch_warnings(action="ignore"):  # where no input gets a gradient
        model(**{name: each.to(model.device) for name, each in batch.items()}).loss.backward()
    for hook in hooks:
        hook.remove()
    visits = {name: watch.visit(name, adapted[name]) for name in adapted}
    return Trace(visits, tuple(watch.restored))


class _Watch(TorchDispatchMode):
    """Notes the operations of each module, and the life of each restored weight."""

    def __init__(self) -> None:
        super().__init__()
        self.restored, self._facts = [0], {}
        self._at("", "", False)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if word := _SAYS.get(func.name().split("::")[-1].split(".")[0]):
            self._note(word, [a for a in args if isinstance(a, Tensor)], out)
        return out

    def _note(self, word: str, inputs: list[Tensor], out: Tensor) -> None:
        if word == "weight restored":
            storage = out.untyped_storage()
            self._live(storage.nbytes())
            weakref.finalize(storage, self._live, -storage.nbytes())
        if facts := self._facts.get(self._module):
            formats = " x ".join(_format(each) for each in inputs[:2])
            text = f"{self._phase} {word}: {formats} -> {_format(out)} {tuple(out.shape)}"
            facts["operations"].append(text)
            if self._inside and "product" in word:
                facts["multiplies"] = _format(out)

    def _live(self, change: int) -> None:
        self.restored.append(self.restored[-1] + change)

    def _at(self, *place: Any) -> None:
        self._module, self._phase, self._inside = place

    def follow(self, name: str, module: nn.Module) -> list[Any]:
        """Return hooks that say which module is at work, and what it gets and gives."""
        facts = self._facts[name] = {"multiplies": "", "operations": []}
        base = module.base_layer

        def enter(_: nn.Module, inputs: tuple) -> None:
            self._at(name, "forward", False)
            facts["enters"] = _format(inputs[0])

        def leave(_: nn.Module, to_inputs: tuple, __: tuple) -> None:
            self._at("", "", False)
            facts["passes_on"] = any(gradient is not None for gradient in to_inputs)

        return [
            module.register_forward_pre_hook(enter),
            base.register_forward_pre_hook(lambda *_: self._at(name, "forward", True)),
            base.register_forward_hook(lambda *_: self._at(name, "forward", False)),
            module.register_forward_hook(lambda *_: self._at("", "", False)),
            module.register_full_backward_pre_hook(lambda *_: self._at(name, "backward", False)),
            module.register_full_backward_hook(leave),
        ]

    def visit(self, name: str, module: nn.Module) -> Visit:
        """Return what was noted of a module."""
        got = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        trained = tuple(f"{n.replace('.default.weight', '')}: {_format(g)}" for n, g in got.items())
        operations = tuple(self._facts[name].pop("operations"))
        return Visit(**self._facts[name], trained=trained, operations=operations)


def _format(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
