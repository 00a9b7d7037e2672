"""Every live byte of one real training step, on a GPU or on the CPU."""

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import TrainerCallback

from ftcourse.chat import Example
from ftcourse.config import FinetuneConfig
from ftcourse.hardware import detect
from ftcourse.live import LIBRARIES, LiveBytes, fullest, note_gradients, resident_tensors
from ftcourse.memory import MemoryBreakdown
from ftcourse.models import (
    attach_adapter,
    libraries_quiet,
    load_base,
    needs_random_weights,
    save_random_model,
)
from ftcourse.train import make_trainer, train


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
