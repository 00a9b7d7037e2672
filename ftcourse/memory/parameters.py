"""The bytes that stay from step to step: weights, gradients and optimizer states, to the byte."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from ftcourse.memory.ledger import BYTES, Row, Shape
from ftcourse.memory.step import Step
from ftcourse.shape import Parameter, parameters

PAGED_FROM = 100_000
"""Numbers in a tensor from which on bitsandbytes pages its states (``get_state_buffer``)."""
EIGHT_BIT_FROM = 4096
"""Numbers in a parameter from which on its states have 8 bits instead of 32 (``min_8bit_size``)."""


@dataclass(frozen=True)
class Weight(Parameter):
    """A parameter of a run, or the same one of each layer."""

    dtype: str = ""
    """Its format where it is not quantized, and that of its gradient."""
    trained: bool = False


@lru_cache(16)
def weights_of(step: Step) -> list[Weight]:
    """Return all parameters of a run: the base model's, and each adapted module's two matrices.

    A is rank x inputs, B is outputs x rank (LoRA paper, section 4.1).
    """
    found, rank, adapter = [], step.config.rank, step.config.adapter_dtype
    for each in parameters(step.shape):
        dtype = _bias_dtype(step, each.name) if step.bits and each.bias else step.weights_dtype
        found.append(Weight(**vars(each), dtype=dtype, trained=step.full))
        if each.linear in step.adapted:
            inputs, outputs = step.shape.linears[each.linear]
            for matrix, shape in {"lora_A": (rank, inputs), "lora_B": (outputs, rank)}.items():
                name = each.name.replace("weight", f"{matrix}.weight")
                found.append(Weight(name, shape, each.count, dtype=adapter, trained=True))
    return found


def _bias_dtype(step: Step, name: str) -> str:
    """Return the format to which bitsandbytes casts a bias: that of its module's products.

    That of an 8-bit module is the format of its input: on a GPU float32 beside LayerNorm, which
    autocast computes so, but for attention's own output.
    """
    family = step.shape.family
    if step.bits == 8 and family.norm == "layer" and step.products and step.card.device == "cuda":
        output = family.path_of(list(family.attention)[-1])
        return step.dtype if name.endswith(f"{output}.bias") else "float32"
    return step.dtype


def trained(step: Step) -> list[Weight]:
    """Return the parameters that are trained."""
    return [weight for weight in weights_of(step) if weight.trained]


def weight_rows(step: Step) -> Iterator[Row]:
    """Yield the weights as they are stored.

    4 bits (QLoRA paper, section 3): two numbers a byte, a float32 constant for each block of 64,
    and the 16 levels. Double quantization keeps a constant as one byte, with a float32 constant for
    each 256 of them, 256 levels, and their mean. 8 bits (LLM.int8 paper, section 3): a byte each,
    and a float32 constant a row.
    """
    for weight in weights_of(step):
        blocks = ceil(weight.numbers / 64)
        match step.bits if weight.linear else 0:
            case 0:
                tensors = {"": (weight.shape, weight.dtype)}
            case 8:
                outputs = weight.shape[-1:] if step.shape.family.transposed else weight.shape[:1]
                tensors = {"": (weight.shape, "int8"), ".SCB": (outputs, "float32")}
            case 4:
                twice = step.config.double_quant
                packed = (ceil(weight.numbers / 2), 1)
                tensors = {"": (packed, "uint8"), ".code": ((16,), "float32")}
                tensors[".absmax"] = (blocks,), "uint8" if twice else "float32"
                if twice:
                    tensors[".offset"] = (), "float32"
                    tensors[".state2.absmax"] = (ceil(blocks / 256),), "float32"
                    tensors[".state2.code"] = (256,), "float32"
        for end, (shape, dtype) in tensors.items():
            yield Row.of(f"{weight.name}{end}", shape, dtype, "weights", weight.count)


def gradient_rows(step: Step) -> Iterator[Row]:
    """Yield the gradients when all are there: one number for each trained one."""
    for weight in trained(step):
        yield Row.of(weight.name, weight.shape, weight.dtype, "gradients", weight.count)


def optimizer_rows(step: Step, weights: Sequence[Weight] | None = None) -> Iterator[Row]:
    """Yield the optimizer's states, as far as they are in PyTorch's memory.

    ``weights``: what is trained, where a rank holds only shards of it.
    """
    for weight in trained(step) if weights is None else weights:
        for name, (shape, dtype) in _states(step, weight).items():
            yield Row.of(f"{weight.name}.{name}", shape, dtype, "optimizer", weight.count)
    if step.config.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        yield Row.of("optimizer", (256,), "float32", "optimizer", 2)  # the levels, for all


def _states(step: Step, weight: Weight) -> dict[str, tuple[Shape, str]]:
    """Return name, shape and format of each state of one parameter.

    AdamW keeps two numbers for each parameter, in the parameter's own format, and counts its steps.
    Adafactor keeps a row and a column of each matrix (Adafactor paper, section 3), and a mean.
    """
    match step.config.optimizer:
        case "sgd":
            return {}
        case "adamw_torch" | "adamw_torch_fused":
            states = dict.fromkeys(("exp_avg", "exp_avg_sq"), (weight.shape, weight.dtype))
            return states | {"step": ((), "float32")}
        case "adafactor":
            rows, columns = weight.shape[:-1], weight.shape[:-2] + weight.shape[-1:]
            factors = {"exp_avg_sq_row": (rows, "float32"), "exp_avg_sq_col": (columns, "float32")}
            whole = {"exp_avg_sq": (weight.shape, "float32")}
            return (factors if rows else whole) | {"RMS": ((), "float32")}
        case _:
            return _bitsandbytes_states(step, weight)


def _bitsandbytes_states(step: Step, weight: Weight) -> dict[str, tuple[Shape, str]]:
    """Return the states of bitsandbytes' AdamW, but for those that it pages.

    In 8 bits it keeps a byte for each of the two, with a float32 constant for each 256 of them.
    Small parameters and, by the Trainer's wish, embeddings keep 32 bits. Paged states are in the
    driver's managed memory, on a GPU alone; their constants are not.
    """
    pages = "paged" in step.config.optimizer and step.card.device == "cuda"
    narrow = step.config.optimizer != "paged_adamw_32bit" and weight.numbers >= EIGHT_BIT_FROM
    narrow = narrow and weight.name.removesuffix(".weight") not in step.shape.family.tables
    states = {}
    if not (pages and weight.numbers >= PAGED_FROM):
        whole = weight.shape, "uint8" if narrow else "float32"
        states = {"state1": whole, "state2": whole}
    if narrow:
        constants = (ceil(weight.numbers / 256),), "float32"
        states |= {"absmax1": constants, "absmax2": constants}
    return states


def optimizer_scratch_bytes(step: Step, weights: Sequence[Weight] | None = None) -> int:
    """Return the bytes that the optimizer needs for a moment.

    On a GPU plain AdamW updates all parameters at once (foreach), which takes a copy of them; else
    one after another: two copies of the one at hand, beside one left of the one before, which in
    a layer may be as large. Adafactor makes them in float32, and of 16-bit numbers two more:
    gradient and parameter. A fused kernel takes nothing.
    """
    optimizer, weights = step.config.optimizer, trained(step) if weights is None else weights
    if optimizer not in ("adamw_torch", "adafactor"):
        return 0
    if optimizer == "adamw_torch" and step.card.device == "cuda":
        return sum(w.numbers * BYTES[w.dtype] * w.count for w in weights)
    widens = optimizer == "adafactor" and BYTES[weights[0].dtype] == 2
    copies, width = (4, 4) if widens else (2, BYTES[weights[0].dtype])
    after_another = [copies * w.numbers for w in weights]
    after_an_equal = [(copies + 1) * w.numbers for w in weights if w.count > 1]
    return width * max(after_another + after_an_equal)
