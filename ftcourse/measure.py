"""Every live byte of one real training step, on a GPU or on the CPU."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import TrainerCallback

from ftcourse import models
from ftcourse.chat import Example
from ftcourse.config import FinetuneConfig, check_training
from ftcourse.errors import CourseError
from ftcourse.hardware import detect
from ftcourse.live import LIBRARIES, LiveBytes
from ftcourse.memory import MemoryBreakdown
from ftcourse.memory.fit import refuse_if_too_large
from ftcourse.memory.ledger import Ledger, Row
from ftcourse.train import make_trainer, train

_RANDOM = "weights are random, not trained: this model has none here; the bytes are the same"


class MemoryMeter(TrainerCallback):
    """Measures one step of a run: give it to ``finetune`` as a callback, then read ``breakdown``.

    It measures the second step, because the optimizer makes its states in the first. ``length`` is
    that of the batch, which is padded to its longest sequence, in tokens. ``peaks`` holds the live
    bytes of each part at the fullest moment of each phase; where batches are summed up, the forward
    passes after the first count with the backward pass.
    """

    tracker = LiveBytes

    def __init__(self, step: int = 2) -> None:
        """Choose the step to measure, counted from 1."""
        self.step = step
        self.breakdown: MemoryBreakdown | None = None
        self.timeline: list[dict[str, int]] = []
        self.peaks: dict[str, dict[str, int]] = {}
        self.length = 0
        self._open = ExitStack()

    def on_step_begin(self, args, state, control, model, optimizer, **_):
        """Count what lives already and follow the rest."""
        if state.global_step + 1 != self.step:
            return
        self._live = live = self.tracker(model.device.type)
        live.note_residents(model, optimizer)
        self._loaded = len(live.history.events)
        live.history.mark("the forward pass")
        hooks = [
            *live.follow(model),
            model.register_forward_pre_hook(self._note_batch, with_kwargs=True),
            model.get_decoder().register_forward_hook(self._mark_loss),
        ]
        for hook in hooks:
            self._open.callback(hook.remove)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._open.enter_context(live)

    def _note_batch(self, model, args, inputs):
        self.length = max(self.length, inputs["input_ids"].shape[1])
        for name in ("input_ids", "labels"):
            self._live.note(inputs[name], "overhead", "batch")

    def _mark_loss(self, decoder, args, output):
        """Name what follows the last layer, until its backward pass."""
        mark = self._live.history.mark
        mark("the loss")
        output[0].register_hook(lambda _: mark("the backward pass"))

    def on_pre_optimizer_step(self, args, state, control, **_):
        """From here on, what is made is the optimizer's scratch memory."""
        if state.global_step + 1 == self.step:
            self._live.makes = "overhead"
            self._live.history.mark("the optimizer's step")

    def on_step_end(self, args, state, control, model, **_):
        """Stop following, and read the breakdown at the peak."""
        if state.global_step != self.step:
            return
        self.close()
        history = self._live.history
        self.timeline = history.timeline()[self._loaded - 1 :]
        self.peaks = {phase: ledger.parts for phase, ledger in history.peaks().items()}
        moment, event = history.fullest()
        self.breakdown = _as_breakdown(history.ledger(event), moment)

    def close(self) -> None:
        """Stop following, also when the step fails: ``train`` calls this in any case."""
        self._open.close()


def _as_breakdown(ledger: Ledger, moment: str) -> MemoryBreakdown:
    """Return the breakdown of a moment; on a GPU with what PyTorch counted beyond our tensors."""
    card, totals = detect(), {}
    if card.device == "cuda":
        hidden = torch.cuda.max_memory_allocated() - sum(ledger.parts.values())
        scratch = Row("inside of kernels, and rounding", (), "uint8", "overhead", hidden)
        ledger = Ledger.of([*ledger, scratch])
        free, total = torch.cuda.mem_get_info()
        totals = {"reserved": torch.cuda.max_memory_reserved(), "process": total - free}
    return MemoryBreakdown.of(
        ledger,
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
    warms up, in float16 five. A shape's name, or a folder with only a config.json, gets random
    weights, which take the same bytes. Raises CourseError if it does not fit.
    """
    return _meter(config).breakdown


def measure_timeline(config: FinetuneConfig) -> list[dict[str, int]]:
    """Return the live bytes of each part after each event of one real training step.

    An event is a tensor that comes or goes. On a CPU the fullest moment has ``measure_memory``'s
    bytes; on a GPU that also has the scratch memory inside of kernels, which no event shows.
    """
    return _meter(config).timeline


def _meter(config: FinetuneConfig) -> MemoryMeter:
    """Return the meter of the second of two steps on random tokens."""
    check_training(config, detect())
    refuse_if_too_large(config)
    last = 6 if config.dtype_on(detect()) == "float16" else 2  # its scaler may skip first steps
    meter = MemoryMeter(last)
    with tempfile.TemporaryDirectory() as folder, models.libraries_quiet():
        note = _RANDOM if models.needs_random_weights(config.model) else ""
        if note:
            _make_random_model(config.model, folder)
            config = replace(config, model=folder)
        config = replace(config, max_steps=last)
        model = models.attach_adapter(models.load_base(config), config)
        examples = _random_examples(config, model.config.vocab_size)
        train(make_trainer(config, model, examples, Path(folder), [meter]), config)
    meter.breakdown = replace(meter.breakdown, note=note)
    return meter


def _make_random_model(model: str, folder: str) -> None:
    try:
        models.save_random_model(model, folder)
    except CourseError:
        raise
    except (ValueError, StrictDataclassError) as error:
        must = "A model without weights is measured if transformers can build what its config says."
        lines = str(error).strip().split("\n")  # a validator says at the end what is wrong
        got = lines[-1 if isinstance(error, StrictDataclassError) else 0].strip()
        raise CourseError(must, got, "Use the config.json that came with the model.") from error


def _random_examples(config: FinetuneConfig, vocab_size: int) -> list[Example]:
    count = 2 * config.batch_size * config.gradient_accumulation_steps
    ids = torch.randint(vocab_size, (count, config.max_length)).tolist()
    return [Example(row, row) for row in ids]
