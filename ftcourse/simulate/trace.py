"""One training step of the real code on PyTorch's fake tensors, while ``LiveBytes`` counts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from ftcourse.live import LiveBytes, resident_tensors
from ftcourse.memory import Step
from ftcourse.memory.ledger import Ledger
from ftcourse.models import build_empty, libraries_quiet
from ftcourse.shape.families import FAMILIES
from ftcourse.simulate.fakes import (
    as_traced,
    build_model,
    build_optimizer,
    materialize,
    product_dtype,
)
from ftcourse.simulate.kernels import LiveBytesOfCuda, choices_of

Batch = dict[str, Tensor]


def trace(step: Step, layers: int, tick: Callable[[], None] = lambda: None) -> dict[str, Ledger]:
    """Return the peak of each moment of the second step of a model with so many layers."""
    with _fakes(step, layers) as (model, optimizer, batch):
        _run(step, model, optimizer, batch, LiveBytes())  # the optimizer makes its states
        tick()
        live = _follow(step, model, optimizer, batch)
        _run(step, model, optimizer, batch, live)
        tick()
    return live.history.peaks()


def trace_from_load(step: Step) -> tuple[list[tuple[int, int]], int]:
    """Return the events of two steps with all layers, and how many come before the first step."""
    with _fakes(step, step.shape.num_hidden_layers) as (model, optimizer, batch):
        live = _follow(step, model, optimizer, batch)
        loaded = len(live.history.events)
        for _ in range(2):
            _run(step, model, optimizer, batch, live)
    return live.history.events, loaded


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


@contextmanager
def _fakes(
    step: Step, layers: int
) -> Iterator[tuple[PreTrainedModel, torch.optim.Optimizer, Batch]]:
    """Yield model, optimizer and batch for a step, where tensors have no content."""
    config = step.config
    with libraries_quiet(), choices_of(step.card):
        model = build_model(step, layers)
        with FakeTensorMode():
            materialize(model)
            size = config.batch_size, config.max_length
            batch = {n: torch.zeros(size, dtype=torch.long) for n in ("input_ids", "labels")}
            yield model, build_optimizer(model, config, step.card.device), batch


def _follow(
    step: Step, model: PreTrainedModel, optimizer: torch.optim.Optimizer, batch: Batch
) -> LiveBytes:
    """Return a counter that has counted what lives before the step."""
    live = LiveBytesOfCuda(step) if step.card.device == "cuda" else LiveBytes()
    for tensor, part, name in resident_tensors(model, optimizer):
        live.note(tensor, part, name)
    for tensor in batch.values():
        live.note(tensor, "overhead", "batch")
    return live


def _run(
    step: Step,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    live: LiveBytes,
) -> None:
    """Take one step and mark where in the history each moment begins."""
    hooks = [*live.follow(model), *_marks(model, live)]
    with live:
        live.makes = "activations"
        live.history.mark("the forward pass")
        _backward(step, model, batch)
        live.history.mark("the optimizer's step")
        live.makes = "overhead"
        optimizer.step()
        optimizer.zero_grad()
    for hook in hooks:
        hook.remove()


def _backward(step: Step, model: PreTrainedModel, batch: Batch) -> None:
    """Run the forward and the backward pass; a loop that holds the output holds the logits."""
    dtype = product_dtype(step)
    with torch.autocast("cpu", dtype, enabled=step.autocast and dtype != torch.float32):
        output = model(**batch)
    loss = output.loss
    if not step.holds_logits:
        del output
    loss.backward()


def _marks(model: PreTrainedModel, live: LiveBytes) -> list:
    """Return hooks that mark where the layers' backward passes begin."""
    layers = decoder_layers(model)
    moment = dict.fromkeys(layers, "a layer's backward pass")
    moment |= {layers[-1]: "the last layer's backward pass"}
    moment |= {layers[0]: "the first layer's backward pass"}

    def mark_backward(layer: nn.Module, _: tuple, out: Tensor | tuple[Tensor, ...]) -> None:
        out = out if torch.is_tensor(out) else out[0]
        if layer is layers[-1]:
            live.history.mark("the loss")
        if out.requires_grad:
            out.register_hook(lambda _: live.history.mark(moment[layer]))

    return [layer.register_forward_hook(mark_backward) for layer in layers]
