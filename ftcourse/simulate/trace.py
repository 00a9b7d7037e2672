"""One training step of the real code on PyTorch's fake tensors, while ``LiveBytes`` counts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ftcourse.live import LiveBytes
from ftcourse.memory import Step
from ftcourse.memory.ledger import Ledger
from ftcourse.memory.peak import around
from ftcourse.models import build_empty, libraries_quiet
from ftcourse.shape.families import FAMILIES
from ftcourse.simulate import fakes
from ftcourse.simulate.kernels import LiveBytesOfCuda, choices_of


class Run(NamedTuple):
    """What takes a training step, on tensors that have no content."""

    step: Step
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    batches: list[dict[str, Tensor]]


def trace(step: Step, layers: int, tick: Callable[[], None] = lambda: None) -> dict[str, Ledger]:
    """Return the peak of each moment of the second step of a model with so many layers."""
    with _prepare(step, layers) as run:
        live, _ = _second_step(run, tick)
    return live.history.peaks()


def trace_timeline(step: Step) -> list[dict[str, int]]:
    """Return the live bytes of each part after each event of the second step, all layers run."""
    with _prepare(step, step.shape.num_hidden_layers) as run:
        live, loaded = _second_step(run)
        return live.history.timeline(around(step))[loaded - 1 :]  # before the model itself dies


def _second_step(run: Run, tick: Callable[[], None] = lambda: None) -> tuple[LiveBytes, int]:
    """Return what followed the second step, and how many of its events came before that."""
    with torch.no_grad():
        _forward(run, run.batches[0])  # in its first one, bitsandbytes casts biases
    for parameter in (p for p in run.model.parameters() if p.requires_grad):
        parameter.grad = torch.zeros_like(parameter)  # any gradients make the optimizer's states
    run.optimizer.step()
    run.optimizer.zero_grad()
    tick()
    live = _follow(run)
    loaded = len(live.history.events)
    _take_step(run, live)
    tick()
    return live, loaded


def trace_from_load(step: Step) -> tuple[list[tuple[int, int]], int]:
    """Return the events of two steps with all layers, and how many come before the first step."""
    with _prepare(step, step.shape.num_hidden_layers) as run:
        live = _follow(run)
        loaded = len(live.history.events)
        for _ in range(2):
            _take_step(run, live)
    return live.history.events, loaded


def layers_alike(step: Step) -> bool:
    """Whether all layers have the same parameters and attention, so that a few stand for all."""
    if step.shape.model_type in FAMILIES:
        return True
    model = build_empty(fakes.as_traced(step.config), step.shape.num_hidden_layers, torch.float32)
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
def _prepare(step: Step, layers: int) -> Iterator[Run]:
    """Yield model, optimizer and batch for a step with so many layers."""
    config = step.config
    with libraries_quiet(), choices_of(step.card):
        model = fakes.build_model(step, layers)
        with FakeTensorMode():
            fakes.materialize(model)
            size = config.batch_size, config.max_length
            batches = [
                {name: torch.zeros(size, dtype=torch.long) for name in ("input_ids", "labels")}
                for _ in range(config.gradient_accumulation_steps)
            ]
            optimizer = fakes.build_optimizer(model, config, step.card.device)
            yield Run(step, model, optimizer, batches)


def _follow(run: Run) -> LiveBytes:
    """Return a counter that has counted what lives before the step."""
    live = LiveBytesOfCuda(run.step) if run.step.card.device == "cuda" else LiveBytes()
    live.note_residents(run.model, run.optimizer)
    for batch in run.batches:
        for tensor in batch.values():
            live.note(tensor, "overhead", "batch")
    return live


def _take_step(run: Run, live: LiveBytes) -> None:
    """Take one step and mark where in the history each moment begins."""
    hooks = [*live.follow(run.model), *_marks(run.model, live)]
    with live:
        live.makes = "activations"
        for batch in run.batches[:2]:  # the second is the first to meet gradients, as all after it
            live.history.mark("the forward pass")
            _backward(run, batch)
        live.history.mark("the optimizer's step")
        live.makes = "overhead"
        run.optimizer.step()
        run.optimizer.zero_grad()
    for hook in hooks:
        hook.remove()


def _forward(run: Run, batch: dict[str, Tensor]) -> ModelOutput:
    dtype = fakes.product_dtype(run.step)
    with torch.autocast("cpu", dtype, enabled=run.step.autocast and dtype != torch.float32):
        return run.model(**batch)


def _backward(run: Run, batch: dict[str, Tensor]) -> None:
    """Run the forward and the backward pass; a loop that holds the output holds the logits."""
    output = _forward(run, batch)
    loss = output.loss
    if not run.step.holds_logits:
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
