"""The real model code on tensors that have a shape and no content: a step without its memory.

transformers' model, peft's adapter, bitsandbytes' 4-bit product and the optimizer all run, on
PyTorch's fake tensors, while ``LiveBytes`` counts. Where layers are alike, we trace models of two
and of three layers and extend each moment of the step along that line.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from itertools import count

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm
from transformers import PreTrainedModel

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.hardware import Card, detect
from ftcourse.live import LIBRARIES, LiveBytes, fullest, note_gradients, resident_tensors
from ftcourse.memory import PARTS, MemoryBreakdown
from ftcourse.memory.peak import cublas_workspaces
from ftcourse.memory.step import Step
from ftcourse.models import architecture, build_empty, libraries_quiet
from ftcourse.shape import ModelShape, is_known, load_shape
from ftcourse.shape.families import FAMILIES
from ftcourse.simulate.allocator import replay
from ftcourse.simulate.cache import cached
from ftcourse.simulate.fakes import (
    as_traced,
    build_model,
    build_optimizer,
    materialize,
    product_dtype,
)
from ftcourse.simulate.kernels import LiveBytesOfCuda, choices_of

Peaks = dict[str, dict[str, int]]
"""For each moment of a step, the live bytes of each part when they were most."""


Progress = Callable[[float], None]
"""Is told which share of the work is done."""


def simulate_memory(
    config: FinetuneConfig,
    card: Card | None = None,
    progress: Progress | None = None,
    *,
    reserved: bool = False,
) -> MemoryBreakdown:
    """Return the bytes of a training step, from the real code of any decoder on fake tensors.

    Needs no GPU and no memory, and takes seconds the first time; then the result is read from the
    cache, until the config, the model's, the libraries or ftcourse itself change. Not seen: scratch
    memory inside kernels, but for the few that we know. ``reserved`` also asks for the bytes that
    PyTorch's allocator takes, for which all layers are traced: some seconds more for each ten. It
    is an estimate: half of the published runs on a T4 are met within 2 %, and the worst is 24 % off
    (``benchmarks/memory_accuracy.py --reserved``), as gaps depend on the order of small things.
    """
    card = card or detect()
    step = Step(config, _shape(config), card)
    model = architecture(config.model).to_dict()
    versions = {name: version(name) for name in LIBRARIES}
    key = [asdict(config), asdict(card), model, versions, reserved]
    return cached(key, lambda: simulate_step(step, progress, reserved=reserved))


def _shape(config: FinetuneConfig) -> ModelShape:
    """Return a model's shape, as far as it is known; raise CourseError if there is no such code."""
    if is_known(config.model):
        return load_shape(config.model)
    try:
        build_empty(as_traced(config), 1, torch.float32)
        return ModelShape.of_stranger(architecture(config.model))
    except ValueError as error:
        raise CourseError(
            "A model is simulated if transformers has it as a decoder, with the attention.",
            str(error).split("\n")[0],
            "Try attention='eager' if that is at fault, else another model or transformers.",
        ) from error


def simulate_step(
    step: Step, progress: Progress | None = None, *, reserved: bool = False
) -> MemoryBreakdown:
    """Return the bytes of a step that may differ from the Trainer's, as a ``Step`` says it.

    Raises CourseError for a mixture in float32, which fake tensors cannot follow.
    """
    if step.shape.num_experts and step.stream == 4:
        raise CourseError(
            "Fake tensors multiply a mixture's experts in bfloat16.",
            "experts in float32",
            "Use dtype='bfloat16', or predict_memory.",
        )
    card, moments = step.card, _moments(step, progress)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = moments[moment]
    parts["overhead"] += sum(cublas_workspaces(card))
    totals = _totals(step) if reserved else {}
    return MemoryBreakdown(**parts, **totals, source="simulated", moment=moment, device=card.name)


def _moments(step: Step, progress: Progress | None) -> Peaks:
    """Return the peak of each moment with all layers: extended, or traced if the layers differ."""
    layers = step.shape.num_hidden_layers
    extends = layers > 3 and layers_alike(step)
    done, runs = count(1), 4 if extends else 2  # two in each trace

    def tick() -> None:
        if progress:
            progress(next(done) / runs)

    if not extends:
        return trace(step, layers, tick)
    two, three = trace(step, 2, tick), trace(step, 3, tick)
    return {name: extend(two[name], three[name], layers) for name in two}


def layers_alike(step: Step) -> bool:
    """Whether all layers have the same parameters and attention, so that a few stand for all."""
    if step.shape.model_type in FAMILIES:
        return True
    model = build_empty(as_traced(step.config), step.shape.num_hidden_layers, torch.float32)
    types = getattr(model.config, "layer_types", None) or []
    sizes = {
        tuple((name, p.shape) for name, p in layer.named_parameters())
        for layer in decoder_layers(model)
    }
    return len(sizes) == 1 and len(set(types)) <= 1


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the layers of a model, the first list of modules in it."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


def _totals(step: Step) -> dict[str, int]:
    """Return what PyTorch's allocator takes for two steps, and what the process then holds.

    Nothing on a CPU, which has no such allocator; and nothing for paged states, which are outside
    of it. Loading is not replayed: it may leave more gaps.
    """
    if step.card.device == "cpu" or "paged" in step.config.optimizer:
        return {}
    with _fakes(step, step.shape.num_hidden_layers) as (model, optimizer, ids):
        live = LiveBytesOfCuda(step)
        for tensor, part in resident_tensors(model, optimizer):
            live.note(tensor, part)
        loaded = len(live.events)
        for _ in range(2):
            _run(step, model, optimizer, ids, live, {})
    workspaces = [(-1 - n, size) for n, size in enumerate(cublas_workspaces(step.card))]
    reserved = replay([*live.events[:loaded], *workspaces, *live.events[loaded:]])
    context = step.card.context
    return {"reserved": reserved} | ({"process": reserved + context} if context else {})


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a callback that moves a bar on a terminal; elsewhere, and with TQDM_DISABLE=1, none."""
    quiet = not sys.stderr.isatty() or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=1.0, desc="simulating", disable=quiet, bar_format="{desc}: {bar}") as bar:
        yield lambda done: bar.update(done - bar.n)


def extend(two: dict[str, int], three: dict[str, int], layers: int) -> dict[str, int]:
    """Return the bytes with all layers, each one adding what the third added to two."""
    return {part: two[part] + (layers - 2) * (three[part] - two[part]) for part in PARTS}


def trace(step: Step, layers: int, tick: Callable[[], None] = lambda: None) -> Peaks:
    """Return the peak of each moment of the second step of a model with so many layers."""
    with _fakes(step, layers) as (model, optimizer, ids):
        _run(step, model, optimizer, ids, LiveBytes(), {})  # the optimizer makes its states
        tick()
        live, marks = LiveBytesOfCuda(step) if step.card.device == "cuda" else LiveBytes(), {}
        for tensor, part in resident_tensors(model, optimizer):
            live.note(tensor, part)
        _run(step, model, optimizer, ids, live, marks)
        tick()
    return fullest(live.timeline(), marks)


@contextmanager
def _fakes(
    step: Step, layers: int
) -> Iterator[tuple[PreTrainedModel, torch.optim.Optimizer, Tensor]]:
    """Yield model, optimizer and token ids for a step, where tensors have no content."""
    config = step.config
    with libraries_quiet(), choices_of(step.card):
        model = build_model(step, layers)
        with FakeTensorMode():
            materialize(model)
            ids = torch.zeros((config.batch_size, config.max_length), dtype=torch.long)
            yield model, build_optimizer(model, config, step.card.device), ids


def _run(
    step: Step,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    ids: Tensor,
    live: LiveBytes,
    marks: dict[str, int],
) -> None:
    """Take one step and mark where in the events each moment begins."""

    def mark(name: str) -> None:
        marks.setdefault(name, len(live.events))

    with _hooked(model, live, mark), live:
        live.makes = "activations"
        mark("the loss")
        _backward(step, model, ids)
        mark("the optimizer's step")
        live.makes = "overhead"
        optimizer.step()
        optimizer.zero_grad()


def _backward(step: Step, model: PreTrainedModel, ids: Tensor) -> None:
    """Run the forward and the backward pass; a loop that holds the output holds the logits."""
    dtype = product_dtype(step)
    with torch.autocast("cpu", dtype, enabled=step.autocast and dtype != torch.float32):
        output = model(input_ids=ids, labels=ids)
    loss = output.loss
    if not step.holds_logits:
        del output
    loss.backward()


@contextmanager
def _hooked(model: PreTrainedModel, live: LiveBytes, mark: Callable[[str], None]) -> Iterator[None]:
    """Mark the layers' backward passes and note the gradients of a step, and then no more."""
    layers = decoder_layers(model)
    moment = dict.fromkeys(layers, "a layer's backward pass")
    moment |= {layers[-1]: "the last layer's backward pass"}
    moment |= {layers[0]: "the first layer's backward pass"}

    def mark_backward(layer: nn.Module, _: tuple, out: Tensor | tuple[Tensor, ...]) -> None:
        out = out if torch.is_tensor(out) else out[0]
        if out.requires_grad:
            out.register_hook(lambda _: mark(moment[layer]))

    hooks = [layer.register_forward_hook(mark_backward) for layer in layers]
    hooks += note_gradients(model, live)
    yield
    for hook in hooks:
        hook.remove()
