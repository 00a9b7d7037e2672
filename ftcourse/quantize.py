"""Weights in few bits: a code for each weight, a constant for each block, a codebook of levels.

``weight = codebook[code] * absmax`` of its block, nearly. A block is "row", "tensor" or a number.
"""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor
from torch.nn.functional import pad

from ftcourse.errors import CourseError

Block = int | str
SHARING = 256  # with double quantization, so many constants share one
_TINY = 1e-38  # no absmax is smaller where bitsandbytes divides by it
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def normal_codebook(bits: int) -> Tensor:
    """Return 2**bits levels at quantiles of the normal distribution, from -1 to 1 with zero.

    Source: QLoRA, arXiv 2305.14314, section 3. Twin: bitsandbytes.functional.create_normal_map.
    """
    half = 2 ** (_check_bits(bits) - 1)
    above, below = _quantiles(half), _quantiles(half - 1)
    levels = torch.cat([-below, torch.zeros(1), above.flip(0)])
    return levels / levels.max()


def _quantiles(count: int) -> Tensor:  # above the middle, at equal steps of probability
    shares = torch.linspace(0.9677083, 0.5, count + 1)[:-1]
    return torch.special.ndtri(shares.double()).float()


def uniform_codebook(bits: int) -> Tensor:
    """Return 2**bits evenly spread levels from -1 to 1, without zero."""
    return torch.linspace(-1, 1, 2 ** _check_bits(bits))


def integer_codebook(bits: int) -> Tensor:
    """Return signed integers as levels from -1 to 1: zero is one of them, and a code is unused."""
    most = 2 ** (_check_bits(bits) - 1) - 1
    return torch.arange(-most, most + 1) / most


def dynamic_codebook() -> Tensor:
    """Return 256 levels, denser towards zero: in seven decades 1, 2, 4, ... 64 on each side.

    Source: arXiv 1511.04561. Twin: bitsandbytes.functional.create_dynamic_map.
    """
    levels = [torch.tensor([0.0, 1.0])]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        side = 10 ** (decade - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [side, -side]
    return torch.cat(levels).sort().values


def _check_bits(bits: int) -> int:
    if isinstance(bits, float) or bits not in range(2, 9):
        raise CourseError("A code has 2 to 8 bits.", f"bits={bits!r}", "Try bits=4.")
    return bits


NF4 = normal_codebook(4)
_SIDE = torch.tensor([0, 0.0625, 8, 12, 4, 6, 2, 3]) / 12  # in the order of bitsandbytes' codes
FP4 = torch.cat([_SIDE, -_SIDE])


@dataclass(frozen=True, eq=False)
class Quantized:
    """A weight as codes, with what restores it."""

    codes: Tensor  # the number of a level for each weight: uint8, in the weight's shape
    absmax: Tensor  # a constant for each block, as it is used: float32, shape (num_blocks,)
    codebook: Tensor  # the level of each code, shape (num_levels,)
    block_size: int
    dtype: torch.dtype
    constants: "Quantized | None" = None  # double quantization: absmax less its mean, in 8 bits
    zero_point: Tensor | None = None  # affine: the code that means 0, shape (num_blocks,)

    def dequantize(self) -> Tensor:
        """Twin: bitsandbytes.functional.dequantize_4bit."""
        levels = self.codebook[self.codes.flatten().int()]
        if self.zero_point is not None:
            levels = levels - self._spread(self.zero_point)
        weight = levels * self._spread(self.absmax)
        return weight.view(self.codes.shape).to(self.dtype)

    def _spread(self, constants: Tensor) -> Tensor:
        """Return the constant of each weight's block."""
        return constants.repeat_interleave(self.block_size)[: self.codes.numel()]

    @property
    def nbytes(self) -> int:
        """The bytes of packed codes and constants; the codebook is the same for all weights."""
        bits = (len(self.codebook) - 1).bit_length() * self.codes.numel()
        mean, zeros = 4, 0 if self.zero_point is None else len(self.zero_point)
        constants = self.constants.nbytes + mean if self.constants else self.absmax.nbytes
        return -(bits // -8) + constants + zeros

    def __repr__(self) -> str:
        """Return how many weights there are, and the bits of one with its share of constants."""
        count, blocks = self.codes.numel(), f"{len(self.absmax):,} of {self.block_size:,}"
        return f"{count:,} weights, blocks: {blocks}; {8 * self.nbytes / count:.3f} bits a weight"


def quantize_blockwise(
    weight: Tensor,
    codebook: Tensor,
    block_size: Block = 64,
    double_quant: bool = False,
) -> Quantized:
    """Return the weight as codes of the nearest levels.

    In the middle of two levels the lower one is taken.
    Raises CourseError for weights that are not finite.
    Source: QLoRA, arXiv 2305.14314, section 3.
    Twin: bitsandbytes.functional.quantize_4bit.
    """
    flat, size = _check(weight, block_size)
    codebook = codebook.to(weight.device)
    scaled, absmax = _scale(flat, size)
    codes = _nearest(scaled, codebook).view(weight.shape)
    constants = None
    if double_quant:
        mean = absmax.mean()
        constants = _quantize_constants(absmax - mean)
        absmax = constants.dequantize() + mean
    kept = codebook, size, weight.dtype, constants
    return Quantized(codes, absmax, *kept)


def _scale(flat: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return weights divided by their absmax, and absmax."""
    full = flat.numel() // size * size
    blocks, last = flat[:full].view(-1, size), flat[full:]
    absmax = blocks.abs().amax(1)
    inverse = 1 / absmax.clamp(min=_TINY)
    scaled = (blocks * inverse[:, None]).flatten()
    if len(last):  # a shorter last block; here the twin divides
        most = last.abs().max().clamp(min=_TINY)
        absmax = torch.cat([absmax, most[None]])
        scaled = torch.cat([scaled, last / most])
    return scaled.clamp(-1, 1), absmax


def _nearest(scaled: Tensor, codebook: Tensor) -> Tensor:
    """Return the code of the level nearest to each value."""
    order = codebook.argsort()
    levels = codebook[order]
    middles = (levels[:-1] + levels[1:]) / 2
    place = torch.bucketize(scaled, middles)
    return order[place].to(torch.uint8)


def _quantize_constants(constants: Tensor) -> Quantized:
    """Return constants in 8 bits. Twin: bitsandbytes.functional.quantize_blockwise."""
    blocks = pad(constants, (0, -len(constants) % SHARING)).view(-1, SHARING)
    absmax = blocks.abs().amax(1)
    scaled = (blocks * (1 / absmax[:, None])).clamp(-1, 1).flatten()[: len(constants)]
    # The twin finds levels in a table of 65,536 values, so each is first rounded to one of those.
    snapped = ((scaled.nan_to_num(-1) + 1) * 32767.5 + 0.5).floor() / 32767.5 - 1
    codebook = dynamic_codebook().to(constants.device)
    return Quantized(_nearest(snapped, codebook), absmax, codebook, SHARING, torch.float32)


def _check(weight: Tensor, block_size: Block) -> tuple[Tensor, int]:
    """Return weights in a row, and the block size. Raises CourseError for what has no codes."""
    if weight.dtype not in _FLOATS or not weight.numel() or not weight.isfinite().all():
        got = f"{weight.numel()} numbers of {weight.dtype}, or inf or nan among them"
        must = "Weights are finite numbers of float32, float16 or bfloat16."
        raise CourseError(must, got, "Find out where inf or nan began, or try weight.float().")
    flat = weight.detach().flatten().float()
    named = {"row": weight.shape[-1] if weight.dim() else 1, "tensor": len(flat)}
    size = named.get(str(block_size), block_size)
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        must = "A block has at least one weight, and a whole number of them."
        raise CourseError(must, f"{block_size=}", "Try 64, 'row' or 'tensor'.")
    return flat, int(size)


def bits_per_weight(
    bits: int, block_size: int = 64, double_quant: bool = False, zero_point: bool = False
) -> float:
    """Return the bits of a weight with its share of the constants; a zero point has a byte.

    >>> bits_per_weight(4), bits_per_weight(4, 64, double_quant=True)
    (4.5, 4.126953125)
    """
    constants = 8 + 32 / SHARING if double_quant else 32
    return bits + (constants + 8 * zero_point) / block_size


def quantize_affine(weight: Tensor, bits: int, block_size: Block = 64) -> Quantized:
    """Return integers that reach from a block's lowest weight to its highest; zero is exact.

    Source: arXiv 1712.05877, section 2.1. Twin: torch.fake_quantize_per_channel_affine.
    """
    (flat, size), most = _check(weight, block_size), 2 ** _check_bits(bits) - 1
    blocks = pad(flat, (0, -len(flat) % size)).view(-1, size)
    lowest, highest = blocks.amin(1, True).clamp(max=0), blocks.amax(1, True).clamp(min=0)
    scale = ((highest - lowest) / most).clamp(min=_TINY)
    zero_point = (-lowest / scale).round()
    codes = ((blocks * (1 / scale)).round() + zero_point).clamp(0, most)
    codes = codes.flatten()[: len(flat)].view(weight.shape).to(torch.uint8)
    integers = torch.arange(most + 1.0, device=weight.device)
    kept = integers, size, weight.dtype, None, zero_point.flatten()
    return Quantized(codes, scale.flatten(), *kept)


def quantize_as(scheme: str, weight: Tensor, bits: int, block_size: Block = 64) -> Quantized:
    """Return a weight as codes by a scheme's name: ``integer``, ``affine``, ``normal``, ``fp4``."""
    if scheme == "affine":
        return quantize_affine(weight, bits, block_size)
    made = {"integer": integer_codebook, "normal": normal_codebook, "fp4": lambda bits: FP4}
    if scheme not in made or (scheme == "fp4" and bits != 4):
        must = "A scheme is affine, integer or normal, or fp4 with 4 bits."
        raise CourseError(must, f"{scheme=}, {bits=}", "Try 'normal' with 4 bits.")
    return quantize_blockwise(weight, made[scheme](bits), block_size)


def quantize_rows(rows: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return int8 codes, each row's absmax, and which columns stay out: they reach the threshold.

    Source: arXiv 2208.07339, section 3. Twin: torch.ops.bitsandbytes.int8_vectorwise_quant.
    """
    large = (rows.abs() >= threshold) & (threshold > 0)
    kept, outliers = rows.masked_fill(large, 0), large.any(0)
    absmax = kept.abs().amax(1, keepdim=True).float()
    per_unit = 127 / (absmax + (absmax == 0))
    codes = (kept * per_unit).round().masked_fill(outliers, 0)
    return codes.to(torch.int8), absmax, outliers


def int8_linear(inputs: Tensor, weight: Tensor, threshold: float = 6.0) -> Tensor:
    """Return inputs, shape (..., columns), times weight in 8-bit integers; outliers as they are.

    Twin: bitsandbytes.nn.Linear8bitLt.
    """
    rows = inputs.flatten(0, -2)
    x, x_absmax, outliers = quantize_rows(rows, threshold)
    w, w_absmax, _ = quantize_rows(weight)
    outputs = x.double() @ w.double().T * (x_absmax * w_absmax.T / 127**2)  # the product is exact
    restored = (w * w_absmax / 127)[:, outliers]
    outputs += rows[:, outliers].double() @ restored.double().T
    return outputs.view(*inputs.shape[:-1], -1).to(inputs.dtype)
