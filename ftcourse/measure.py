"""Every live byte of one real training step, on a GPU or on the CPU."""

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback

from ftcourse.chat import Example
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import detect
from ftcourse.memory import PARTS, MemoryBreakdown
from ftcourse.models import (
    attach_adapter,
    libraries_quiet,
    load_base,
    needs_random_weights,
    save_random_model,
)
from ftcourse.train import make_trainer, train

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


class MemoryMeter(TrainerCallback):
    """Measures one step of a run: give it to ``finetune`` as a callback, then read ``breakdown``.

    It measures the second step, because the optimizer makes its states in the first. ``length`` is
    that of the batch, which is padded to its longest sequence, in tokens. ``peaks`` holds the live
    bytes of each part at the fullest moment of each phase; batches that are summed up count with
    the backward pass, but for the first one's forward pass.
    """

    def __init__(self, step: int = 2) -> None:
        """Choose the step to measure, counted from 1."""
        self.step = step
        self.breakdown: MemoryBreakdown | None = None
        self.timeline: list[dict[str, int]] = []
        self.peaks: dict[str, dict[str, int]] = {}
        self.length = 0

    def on_step_begin(self, args, state, control, model, optimizer, **_):
        """Count what lives already and follow the rest."""
        if state.global_step + 1 != self.step:
            return
        self._live = LiveBytes(model.device.type)
        for tensor, part in resident_tensors(model, optimizer):
            self._live.note(tensor, part)
        self._hooks = note_gradients(model, self._live)
        self._hooks.append(model.register_forward_pre_hook(self._note_length, with_kwargs=True))
        self._hooks.append(model.register_forward_hook(lambda *_: self._mark("the backward pass")))
        self._marks = {"the forward pass": 0}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._live.__enter__()

    def _note_length(self, model, args, inputs):
        self.length = max(self.length, inputs["input_ids"].shape[1])

    def _mark(self, phase: str) -> None:
        self._marks.setdefault(phase, len(self._live.events))

    def on_pre_optimizer_step(self, args, state, control, **_):
        """From here on, what is made is the optimizer's scratch memory."""
        if state.global_step + 1 == self.step:
            self._live.makes = "overhead"
            self._mark("the optimizer's step")

    def on_step_end(self, args, state, control, model, **_):
        """Stop following, and read the breakdown at the peak."""
        if state.global_step != self.step:
            return
        self._live.__exit__(None, None, None)
        for hook in self._hooks:
            hook.remove()
        self.timeline = self._live.timeline()
        self.peaks = fullest(self.timeline, self._marks)
        moment = max(self.peaks, key=lambda phase: sum(self.peaks[phase].values()))
        self.breakdown = _as_breakdown(self.peaks[moment], moment)


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


def _as_breakdown(peak: dict[str, int], moment: str) -> MemoryBreakdown:
    card = detect()
    totals = {}
    if card.device == "cuda":
        hidden = torch.cuda.max_memory_allocated() - sum(peak.values())
        peak = {**peak, "overhead": peak["overhead"] + hidden}
        free, total = torch.cuda.mem_get_info()
        totals = {"reserved": torch.cuda.max_memory_reserved(), "process": total - free}
    return MemoryBreakdown(
        **peak,
        **totals,
        source="measured",
        moment=moment,
        device=card.name,
        date=datetime.now(UTC).date().isoformat(),
        versions={name: version(name) for name in LIBRARIES},
    )


def measure_memory(config: FinetuneConfig) -> MemoryBreakdown:
    """Return the bytes of one real training step on the device that is there.

    The step is ``finetune``'s own, on random tokens that fill ``max_length``, after one step that
    warms up. A shape's name, or a folder with only a config.json, gets random weights, which take
    the same bytes. Raises CourseError if it does not fit.
    """
    meter = MemoryMeter()
    with tempfile.TemporaryDirectory() as folder, libraries_quiet():
        if needs_random_weights(config.model):
            save_random_model(config.model, folder)
            config = replace(config, model=folder)
        config = replace(config, max_steps=2)
        model = attach_adapter(load_base(config), config)
        examples = _random_examples(config, model.config.vocab_size)
        train(make_trainer(config, model, examples, Path(folder), [meter]), config)
    return meter.breakdown


def _random_examples(config: FinetuneConfig, vocab_size: int) -> list[Example]:
    count = 2 * config.batch_size * config.gradient_accumulation_steps
    ids = torch.randint(vocab_size, (count, config.max_length)).tolist()
    return [Example(row, row) for row in ids]
