"""The real model code on tensors that have a shape and no content: a step without its memory.

transformers' model, peft's adapter, bitsandbytes' 4-bit product and the optimizer all run, on
PyTorch's fake tensors, while ``LiveBytes`` counts. Layers are alike, so we trace models of two and
of three layers and extend each moment of the step along that line.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.fakes import build_model, materialize, product_dtype
from ftcourse.hardware import Card, detect
from ftcourse.measure import LiveBytes, resident_tensors
from ftcourse.memory import CUBLAS_WORKSPACE, PARTS, MemoryBreakdown
from ftcourse.models import libraries_quiet
from ftcourse.shape import load_shape
from ftcourse.step import Step

Peaks = dict[str, dict[str, int]]
"""For each moment of a step, the live bytes of each part when they were most."""


@cache
def simulate_memory(config: FinetuneConfig, card: Card | None = None) -> MemoryBreakdown:
    """Return the bytes of a training step, from the real code on fake tensors.

    Needs no GPU and no memory, and takes seconds. Not seen: scratch memory inside kernels, but for
    cuBLAS's known workspace. Raises CourseError for a choice that fake tensors cannot follow.
    """
    _check(config)
    return simulate_step(Step(config, load_shape(config.model), card or detect()))


def simulate_step(step: Step) -> MemoryBreakdown:
    """Return the bytes of a step that may differ from the Trainer's, as a ``Step`` says it."""
    layers, card = step.shape.num_hidden_layers, step.card
    two, three = trace(step, 2), trace(step, 3)
    moments = {name: extend(two[name], three[name], layers) for name in two}
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = moments[moment]
    parts["overhead"] += CUBLAS_WORKSPACE if card.device == "cuda" else 0
    return MemoryBreakdown(**parts, source="simulated", moment=moment, device=card.name)


def _check(config: FinetuneConfig) -> None:
    cannot = {
        "bits": config.method == "qlora" and config.bits == 8,
        "optimizer": "8bit" in config.optimizer or "paged" in config.optimizer,
        "attention": config.attention == "flash_attention_2",
    }
    if names := [name for name, bad in cannot.items() if bad]:
        raise CourseError(
            "Fake tensors follow 4-bit weights, PyTorch's own attention and its optimizers.",
            ", ".join(f"{name}={getattr(config, name)!r}" for name in names),
            "Use predict_memory for this run, or measure_memory where it can run.",
        )


def extend(two: dict[str, int], three: dict[str, int], layers: int) -> dict[str, int]:
    """Return the bytes with all layers, each one adding what the third added to two."""
    return {part: two[part] + (layers - 2) * (three[part] - two[part]) for part in PARTS}


def trace(step: Step, layers: int) -> Peaks:
    """Return the peak of each moment of the second step of a model with so many layers."""
    config = step.config
    with libraries_quiet(), _as_on(step.card):
        model = build_model(step, layers)
        with FakeTensorMode():
            materialize(model)
            optimizer = _optimizer(model, config)
            ids = torch.zeros((config.batch_size, config.max_length), dtype=torch.long)
            _run(step, model, optimizer, ids, LiveBytes(), {})  # the optimizer makes its states
            live, marks = LiveBytesOfCuda(step) if step.card.device == "cuda" else LiveBytes(), {}
            for tensor, part in resident_tensors(model, optimizer):
                live.note(tensor, part)
            _run(step, model, optimizer, ids, live, marks)
    return _peaks(live, marks)


class LiveBytesOfCuda(LiveBytes):
    """Live bytes as CUDA's kernels would have them, where these differ from the CPU's.

    Softmax's backward pass first multiplies its result and its gradient (PyTorch's SoftMax.cu). It
    gives fp16 scores a gradient in fp16, where ours is in fp32: so half the product stands for all.
    """

    def __init__(self, step: Step) -> None:
        """Start with nothing alive."""
        super().__init__()
        half = step.config.dtype_on(step.card) == "float16" and step.attention_width == 2
        self.product_dtype = torch.float16 if half else None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation beside the scratch memory that CUDA's kernel would take."""
        if func is torch.ops.aten._softmax_backward_data.default:
            product = torch.empty_like(args[0], dtype=self.product_dtype)
            self.note(product, self.makes)
        return super().__torch_dispatch__(func, types, args, kwargs)


def _run(
    step: Step,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    ids: Tensor,
    live: LiveBytes,
    marks: dict[str, int],
) -> None:
    """Take one step and mark where in the events each moment begins."""
    dtype = product_dtype(step)

    def mark(name: str) -> None:
        marks.setdefault(name, len(live.events))

    def mark_backward(layer: nn.Module, _: tuple, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda _: mark(moment[layer]))

    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
    moment = dict.fromkeys(layers, "between")
    moment |= {layers[-1]: "the last layer's backward pass"}
    moment |= {layers[0]: "the first layer's backward pass"}
    hooks = [layer.register_forward_hook(mark_backward) for layer in layers]
    trained = [p for p in model.parameters() if p.requires_grad]
    hooks += [
        p.register_post_accumulate_grad_hook(lambda p: live.note(p.grad, "gradients", sure=True))
        for p in trained
    ]
    with live:
        mark("the loss")
        with torch.autocast("cpu", dtype, enabled=step.autocast and dtype != torch.float32):
            output = model(input_ids=ids, labels=ids)
        loss = output.loss
        if not step.holds_logits:
            del output
        loss.backward()
        mark("the optimizer's step")
        live.makes = "overhead"
        optimizer.step()
        optimizer.zero_grad()
    for hook in hooks:
        hook.remove()


def _peaks(live: LiveBytes, marks: dict[str, int]) -> Peaks:
    """Return the fullest moment of each stretch between two marks."""
    timeline = live.timeline()
    starts = sorted(marks.items(), key=lambda item: item[1])
    ends = [start for _, start in starts[1:]] + [len(timeline)]
    return {
        name: max(timeline[start:end], key=lambda parts: sum(parts.values()))
        for (name, start), end in zip(starts, ends, strict=True)
        if name != "between"
    }


def _optimizer(model: nn.Module, config: FinetuneConfig) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(trained, lr=1e-3, scale_parameter=False, relative_step=False)
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-3)
    return torch.optim.AdamW(trained, fused=config.optimizer == "adamw_torch_fused")


@contextmanager
def _as_on(card: Card) -> Iterator[None]:
    """Let the libraries choose as they would with real tensors, and on a GPU if the card is one."""
    choices = {"transformers.masking_utils.find_packed_sequence_indices": lambda *_, **__: None}
    if card.device == "cuda":  # peft's 4-bit layers ask for the autocast of a GPU
        choices["torch.is_autocast_enabled"] = lambda *_: torch._C._is_any_autocast_enabled()
    if card.capability and card.capability < (8, 0):  # no flash kernel, so keys are repeated
        choices["transformers.integrations.sdpa_attention.use_gqa_in_sdpa"] = lambda *_: False
    with ExitStack() as patches:
        for name, choice in choices.items():
            patches.enter_context(patch(name, choice))
        yield
