"""QLoRA by hand: a weight that lies in memory as codes, and a gradient that passes through it.

The frozen weight is stored in 4 bits and restored for a moment wherever it is multiplied. The
adapter beside it is that of ``ftcourse.lora``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ftcourse.errors import CourseError
from ftcourse.lora import inject_lora, target_linears
from ftcourse.quantize import NF4, Quantized, dynamic_codebook, quantize_blockwise


def pack(codes: Tensor) -> Tensor:
    """Return 4-bit codes as bytes, two in each; shape (bytes, 1).

    Twin: the weight of bitsandbytes.nn.Linear4bit.
    """
    flat = codes.flatten()
    if len(flat) % 2 or int(flat.max()) > 15:
        got = f"{len(flat)} codes, the largest is {int(flat.max())}"
        raise CourseError("Two codes below 16 make a byte.", got, "Use 4 bits, an even number.")
    return (flat[0::2] * 16 + flat[1::2])[:, None]


def unpack(packed: Tensor) -> Tensor:
    """Return the codes of packed bytes, in a row."""
    return torch.stack([packed // 16, packed % 16], dim=-1).flatten()


class ThroughCodes(torch.autograd.Function):
    """x W^T, where W is made from its codes for the moment.

    The gradient passes through W to x. There is none for W.
    Source: QLoRA, arXiv 2305.14314, equation 5.
    Twin: bitsandbytes.autograd._functions.MatMul4Bit.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "FourBitLinear"):
        """Return outputs; keep the layer, which holds codes."""
        ctx.layer = layer
        return linear(x, layer.restored(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        """Return the gradient of x, and none for the layer."""
        W = ctx.layer.restored(gradient.dtype)  # once more
        return gradient @ W, None


class FourBitLinear(nn.Linear):
    """A frozen linear module whose weight is stored as codes.

    Source: QLoRA, section 3. Twin: bitsandbytes.nn.Linear4bit.
    """

    def __init__(
        self,
        module: nn.Linear,
        codebook: Tensor = NF4,
        double_quant: bool = True,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        """Quantize a module; it multiplies in compute_dtype."""
        nn.Module.__init__(self)  # no weight of its own yet
        weight = module.weight.detach()
        self.out_features, self.in_features = weight.shape
        self.compute_dtype = compute_dtype or weight.dtype
        plain = quantize_blockwise(weight, codebook)
        packed = pack(plain.codes)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias, self.absmax = module.bias, plain.absmax
        self.codebook = codebook.to(weight.device)
        self.mean = self.scales = None
        if double_quant:
            q = quantize_blockwise(weight, codebook, 64, True)
            self.mean = plain.absmax.mean()
            self.absmax = q.constants.codes
            self.scales = q.constants.absmax

    def constants(self) -> Tensor:
        """Return a float32 constant for each block of 64."""
        if self.scales is None:
            return self.absmax
        levels = dynamic_codebook().to(self.scales.device)
        kept = (self.absmax, self.scales, levels, 256)
        return Quantized(*kept, torch.float32).dequantize() + self.mean

    def restored(self, dtype: torch.dtype) -> Tensor:
        """Return the weight as numbers, (outputs, inputs)."""
        shape = (self.out_features, self.in_features)
        codes = unpack(self.weight).view(shape)
        kept = (codes, self.constants(), self.codebook, 64)
        return Quantized(*kept, dtype).dequantize()

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs in the format of the inputs."""
        narrow = x.to(self.compute_dtype)
        y = ThroughCodes.apply(narrow, self)
        y = y if self.bias is None else y + self.bias.to(y.dtype)
        return y.to(x.dtype)


def inject_qlora(
    model: nn.Module,
    rank: int = 16,
    alpha: float = 32,
    codebook: Tensor = NF4,
    double_quant: bool = True,
) -> nn.Module:
    """Return the model in 4 bits, with LoRA beside each weight.

    Twin: peft.get_peft_model on a model loaded in 4 bits.
    """
    for name, module in target_linears(model).items():
        stored = FourBitLinear(module, codebook, double_quant)
        model.set_submodule(name, stored)
    return inject_lora(model, "all-linear", rank, alpha)


def stored_bytes(layer: nn.Module) -> dict[str, int]:
    """Return what a 4-bit module keeps, ours or that of bitsandbytes, in bytes."""
    if (state := getattr(layer.weight, "quant_state", None)) is None:
        first, second, levels = layer.absmax, [layer.scales, layer.mean], []
    else:  # bitsandbytes keeps the levels beside each weight
        nested = [state.state2] if state.nested else []
        first, second = state.absmax, [n.absmax for n in nested] + [state.offset]
        levels = [state.code, *(n.code for n in nested)]
    groups = {"codes": [layer.weight], "constants": [first]}
    groups |= {"constants of constants": second, "levels": levels}
    return {name: sum(t.nbytes for t in each if t is not None) for name, each in groups.items()}


def kept_bytes(call: Callable[[], Tensor]) -> int:
    """Return the bytes that a call keeps for its backward pass, but for parameters."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return sum(kept.values())
