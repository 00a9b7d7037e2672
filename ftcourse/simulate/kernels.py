"""What a GPU's kernels keep and need that the CPU's do not; fake tensors count as the CPU's."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from bitsandbytes.autograd._functions import MatMul8bitLt
from torch import Tensor
from torch.nn import functional as F

from ftcourse.hardware import Card
from ftcourse.live import LiveBytes
from ftcourse.memory.parameters import PAGED_FROM
from ftcourse.memory.step import Step


@contextmanager
def choices_of(card: Card) -> Iterator[None]:
    """Let the libraries choose as they would with real tensors, and on a GPU if the card is one."""
    choices = {
        "transformers.masking_utils.find_packed_sequence_indices": lambda *_, **__: None,
        "bitsandbytes.optim.optimizer.Optimizer8bit.fill_qmap": _fill_levels,
    }
    if card.device == "cuda":  # peft's 4-bit layers ask for the autocast of a GPU
        choices["torch.is_autocast_enabled"] = lambda *_: torch._C._is_any_autocast_enabled()
        choices["bitsandbytes.autograd._functions.MatMul8bitFp"] = MatMul8bitLt  # not for GPUs
        choices |= _gpu_kernels()
    if card.capability and card.capability < (8, 0):  # no flash kernel, so keys are repeated
        choices["transformers.integrations.sdpa_attention.use_gqa_in_sdpa"] = lambda *_: False
    with ExitStack() as patches:
        for name, choice in choices.items():
            patches.enter_context(patch(name, choice))
        yield


def _gpu_kernels() -> dict[str, Callable]:
    """Return what autocast, dropout and attention's kernel do on a GPU and not on the CPU."""
    layer_norm, softmax, power = F.layer_norm, F.softmax, torch.pow
    attention = F.scaled_dot_product_attention

    def wide(x: Tensor) -> Tensor:
        return x.float() if torch._C._is_any_autocast_enabled() else x

    def normalize(x, shape, weight=None, bias=None, eps=1e-5):
        fp32 = [None if t is None else wide(t) for t in (weight, bias)]
        return layer_norm(wide(x), shape, *fp32, eps)

    return {
        "torch.nn.functional.layer_norm": normalize,
        "torch.nn.functional.dropout": lambda x, p=0.5, training=True, inplace=False: (
            torch.native_dropout(x, p, training)[0] if p and training else x
        ),
        "torch.nn.functional.scaled_dot_product_attention": lambda *inputs, dropout_p=0, **more: (
            attention(*inputs, **more)
        ),
        "torch.nn.functional.softmax": lambda x, **options: softmax(wide(x), **options),
        "torch.pow": lambda x, exponent: power(wide(x), exponent),
    }


def _fill_levels(optimizer: torch.optim.Optimizer) -> None:
    """Give an 8-bit optimizer its two tables of levels, without computing what is in them."""
    optimizer.name2qmap = {name: torch.empty(256) for name in ("dynamic", "udynamic")}


class LiveBytesOfCuda(LiveBytes):
    """Live bytes as a GPU would have them, where these differ from the CPU's.

    Softmax's backward pass first multiplies its result and its gradient (PyTorch's SoftMax.cu). It
    gives fp16 scores a gradient in fp16, where ours is in fp32: so half the product stands for all.
    The product of 8-bit numbers is summed in int32. Paged states are not in PyTorch's memory.
    """

    def __init__(self, step: Step) -> None:
        """Start with nothing alive."""
        super().__init__()
        half = step.weights_dtype == "float16"  # of the mask, and so of the scores
        self.product_dtype = torch.float16 if half else torch.float32
        self.pages = "paged" in step.config.optimizer
        self._paged: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation beside the scratch memory that the GPU's kernel takes."""
        scratch = None
        if func is torch.ops.aten._softmax_backward_data.default:
            scratch = torch.empty_like(args[0], dtype=self.product_dtype)
        if func is torch.ops.bitsandbytes.int8_scaled_mm.default:
            scratch = torch.empty((args[0].shape[0], args[1].shape[0]), dtype=torch.int32)
        if scratch is not None:
            self.note(scratch, self.makes, self.modules.here())
        return super().__torch_dispatch__(func, types, args, kwargs)

    def note(self, tensor: Tensor, part: str, name: str) -> None:
        """Count a tensor, unless it is a paged state; a state's constants, in one row, are not."""
        address = tensor.untyped_storage()._cdata
        state = part == "optimizer" and tensor.dim() > 1
        if self.pages and state and tensor.numel() >= PAGED_FROM:
            self._paged.add(address)  # it outlives the step, so nothing else gets its address
        if address not in self._paged:
            super().note(tensor, part, name)
