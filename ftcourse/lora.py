"""LoRA by hand: two thin matrices beside a frozen linear module, and what a full update holds.

The letters are the papers': a weight W of shape (outputs, inputs) gets the update ``scaling * B A``
with B of shape (outputs, rank) and A of shape (rank, inputs).
"""

import copy
import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from ftcourse.errors import CourseError


class LoRALinear(nn.Module):
    """A frozen linear module and a trained pair of thin matrices.

    Computes ``x W^T + scaling * x A^T B^T``. Source: LoRA, arXiv
    2106.09685, section 4.1. With ``rslora`` the scaling is alpha
    divided by the root of the rank: rsLoRA, arXiv 2312.03732.
    Twin: peft.tuners.lora.Linear.
    """

    def __init__(
        self,
        base_layer: nn.Linear,
        rank: int = 16,
        alpha: float = 32,
        rslora: bool = False,
        dora: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Freeze the module; A is random at first, B zero."""
        super().__init__()
        _check_choices(rank, alpha, dropout)
        _check_module(base_layer, "base_layer", dora)
        self.base_layer = base_layer.requires_grad_(False)
        self.rank, self.alpha = rank, alpha
        self.scaling = alpha / (rank**0.5 if rslora else rank)
        self.dropout = dropout
        weight = base_layer.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        kind = {"dtype": dtype, "device": weight.device}
        A = torch.empty(rank, base_layer.in_features, **kind)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        self.lora_A = nn.Parameter(A)
        B = A.new_zeros(base_layer.out_features, rank)
        self.lora_B = nn.Parameter(B)
        self.magnitude = None
        if dora:  # one number for each output: the row's length
            lengths = self.row_lengths().detach()
            self.magnitude = nn.Parameter(lengths)
        self.train(base_layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (..., outputs)."""
        result = self.base_layer(x)
        x = x.to(self.lora_A.dtype)
        x = dropout(x, self.dropout, self.training)
        # First A, then B: no matrix here is as large as W.
        added = linear(linear(x, self.lora_A), self.lora_B)
        change = added * self.scaling
        if self.magnitude is not None:
            change = self._dora(x, result, added)
        return (result + change).to(result.dtype)

    def _dora(self, x: Tensor, result: Tensor, added: Tensor):
        """Return what DoRA adds: each row gets the trained length.

        arXiv 2402.09353, equation 5. No gradient goes through the
        length that the row has: section 4.3.
        """
        weight, bias = self.base_layer.weight, self.base_layer.bias
        if self.dropout and self.training:
            frozen = linear(x, weight.to(x.dtype))
        else:
            frozen = result if bias is None else result - bias
        factor = self.magnitude / self.row_lengths().detach()
        return (factor - 1) * frozen + factor * added * self.scaling

    def update(self) -> Tensor:
        """Return scaling * B A, shape (outputs, inputs)."""
        return self.lora_B @ self.lora_A * self.scaling

    def row_lengths(self) -> Tensor:
        """Return the length of each row of W + scaling B A."""
        weight = self.base_layer.weight.to(self.lora_A.dtype)
        return (weight + self.update()).norm(dim=1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one linear module that computes the same.

        The sum is rounded once, to the format of the weight.
        """
        base = self.base_layer
        if not base.weight.is_floating_point():
            got = f"{type(base).__name__}, whose weights are codes"
            do = "Load the base in 16 bits or more and merge there."
            raise CourseError("A merge adds to numbers.", got, do)
        weight = base.weight + self.update()
        if self.magnitude is not None:
            weight *= (self.magnitude / self.row_lengths())[:, None]
        plain = copy.deepcopy(base)
        plain.weight.data = weight.to(base.weight.dtype)
        return plain


def inject_lora(
    model: nn.Module,
    target_modules: str | Sequence[str] = "all-linear",
    rank: int = 16,
    alpha: float = 32,
    rslora: bool = False,
    dora: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Return the same model, frozen, with LoRA beside its modules.

    ``target_modules`` are ends of names, such as ``q_proj``, or
    ``all-linear``: all but the output head. The other choices are
    those of LoRALinear. A model that is refused stays as it was.
    Twin: peft.get_peft_model.
    """
    found = target_linears(model, target_modules)
    _check_choices(rank, alpha, dropout)
    for name, module in found.items():
        _check_module(module, name, dora)
    model.requires_grad_(False)
    for name, module in found.items():
        model.set_submodule(name, LoRALinear(module, rank, alpha, rslora, dora, dropout))
    return model


def target_linears(
    model: nn.Module, target_modules: str | Sequence[str] = "all-linear"
) -> dict[str, nn.Linear]:
    """Return the linear modules that are meant, by their full names."""
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        do = "Merge it first, with merge(model), or load the model again."
        raise CourseError("A model gets one adapter.", "a model that has LoRA already", do)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linears = {
        name: module
        for name, module in model.named_modules()
        if name and isinstance(module, nn.Linear) and module is not head
    }
    wanted = [target_modules] if isinstance(target_modules, str) else [*target_modules]
    ends = ("",) if wanted == ["all-linear"] else tuple(f".{end}" for end in wanted)
    unknown = [end for end in ends if not any(f".{name}".endswith(end) for name in linears)]
    if unknown or not ends:
        parts = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linears))
        must = "target_modules names linear modules of the model, or says 'all-linear'."
        do = f"This model has {parts}." if parts else "Give a model that holds linear modules."
        raise CourseError(must, f"{target_modules!r}", do)
    return {name: module for name, module in linears.items() if f".{name}".endswith(ends)}


def merge(model: nn.Module) -> nn.Module:
    """Return the model with W + scaling B A in each plain module.

    It computes the same, up to rounding, as fast as without an adapter.
    A single LoRALinear comes back as a linear module.
    Twin: peft's ``merge_and_unload``.
    """
    if isinstance(model, LoRALinear):
        return model.merged()
    found = {
        name: module.merged()
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear)
    }
    for name, plain in found.items():
        model.set_submodule(name, plain)
    return model


def energy_by_rank(matrix: Tensor) -> Tensor:
    """Return the share of a matrix that its best rank-r part holds.

    Shape (smaller side,): the entry r - 1 is for rank r. The energy is
    the sum of all squares, which that of the singular values' equals.
    """
    squares = torch.linalg.svdvals(matrix.float()) ** 2
    return (squares.cumsum(0) / squares.sum()).nan_to_num()


def cut_to_rank(matrix: Tensor, rank: int) -> Tensor:
    """Return the nearest matrix of this rank (Eckart and Young, 1936)."""
    U, S, V = torch.linalg.svd(matrix.float(), full_matrices=False)
    return (U[:, :rank] * S[:rank] @ V[:rank]).to(matrix.dtype)


@torch.no_grad()
def with_cut_update(base: nn.Module, tuned: nn.Module, rank: int) -> nn.Module:
    """Return a copy of a model with a cut edition of what tuning changed.

    Each linear module but the head gets the best part of this rank of
    its update; whatever else the tuning changed is left out.
    """
    cut, after = copy.deepcopy(base), target_linears(tuned)
    for name, module in target_linears(cut).items():
        update = after[name].weight - module.weight
        module.weight += cut_to_rank(update, rank)
    return cut


def _check_choices(rank: int, alpha: float, dropout: float) -> None:
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        raise CourseError("rank is a whole number from 1 on.", f"rank={rank!r}", "Try rank=8.")
    if not (isinstance(alpha, Real) and math.isfinite(alpha) and alpha > 0):
        raise CourseError("alpha is a positive number.", f"alpha={alpha!r}", "Try 2 * rank.")
    if not (isinstance(dropout, Real) and 0 <= dropout < 1):
        raise CourseError("dropout is a share below 1.", f"dropout={dropout!r}", "Try 0.05.")


def _check_module(module: nn.Module, name: str, dora: bool) -> None:
    """Refuse what is no linear module, and for DoRA a weight with rows that have no direction."""
    got, weight = f"{name}: a {type(module).__name__}", getattr(module, "weight", None)
    if not isinstance(module, nn.Linear):
        raise CourseError("LoRA here stands beside an nn.Linear.", got, "Wrap a linear module.")
    if dora and not weight.is_floating_point():
        raise CourseError("DoRA reads the weight's rows.", f"{got} of codes", "Load in 16 bits.")
    if dora and (zero := int((weight == 0).all(dim=1).sum())):
        must = "DoRA divides each row of a weight by its length, which must not be zero."
        got = f"{name}: {zero} of its {len(weight)} rows are all zeros"
        raise CourseError(must, got, "Leave such modules out of target_modules, or use LoRA.")
