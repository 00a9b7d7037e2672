"""The bytes that stay from step to step: weights, gradients and optimizer states, to the byte."""

from math import ceil, prod

from ftcourse.config import FinetuneConfig
from ftcourse.memory.step import BYTES, Step
from ftcourse.shape.parameters import (
    linear_parameters,
    other_parameters,
    parameter_count,
)


def quantized_bytes(size: int, outputs: int, config: FinetuneConfig) -> int:
    """Return the bytes of one quantized weight matrix of ``size`` numbers.

    4 bits (QLoRA paper, section 3): half a byte each, an fp32 constant for each block of 64, and 16
    levels in fp32. Double quantization keeps a constant as one byte, with an fp32 constant for each
    256 of them, 256 levels, and their mean. 8 bits (LLM.int8 paper, section 3): a byte each and an
    fp32 constant a row.
    """
    if config.bits == 8:
        return size + 4 * outputs
    blocks = ceil(size / 64)
    constants = blocks + 4 * ceil(blocks / 256) + 4 * 256 + 4 if config.double_quant else 4 * blocks
    return ceil(size / 2) + constants + 4 * 16


def weight_bytes(step: Step) -> int:
    """Return the bytes of the base model's weights and of the adapter's."""
    if step.full:
        return parameter_count(step.shape) * step.weights_width
    rest = sum(map(prod, other_parameters(step.shape))) * step.weights_width
    adapter = sum(adapter_sizes(step)) * BYTES[step.config.adapter_dtype]
    if step.config.method == "lora":
        return rest + linear_parameters(step.shape) * step.width + adapter
    layer = sum(quantized_bytes(i * o, o, step.config) for i, o in step.shape.linears.values())
    return rest + step.shape.num_hidden_layers * layer + adapter


def adapter_sizes(step: Step) -> list[int]:
    """Return the size of each adapter matrix: rank x inputs for A, outputs x rank for B."""
    chosen = [step.shape.linears[name] for name in step.adapted]
    return [
        step.config.rank * side for pair in chosen for side in pair
    ] * step.shape.num_hidden_layers


def trained_sizes(step: Step) -> list[int]:
    """Return the size of each parameter that is trained."""
    if not step.full:
        return adapter_sizes(step)
    linears = [i * o for i, o in step.shape.linears.values()] * step.shape.num_hidden_layers
    return linears + [prod(sides) for sides in other_parameters(step.shape)]


def gradient_bytes(step: Step) -> int:
    """Return the bytes of the gradients when all are there: one number for each trained one."""
    return sum(trained_sizes(step)) * step.trained_width


PAGED_FROM = 100_000
"""Numbers in a tensor from which on bitsandbytes pages its states (``get_state_buffer``)."""


def optimizer_bytes(step: Step) -> int:
    """Return the bytes of the optimizer's states, as far as they are in PyTorch's memory.

    AdamW keeps two numbers for each parameter, in the parameter's own format.
    """
    sizes, optimizer = trained_sizes(step), step.config.optimizer
    if optimizer == "sgd":
        return 0
    if optimizer in ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"):
        return _bitsandbytes_states(step, sizes)
    if optimizer == "adafactor":
        return 4 * sum(_factored_sizes(step)) + 4 * len(sizes)  # and its mean square
    return sum(2 * n * step.trained_width + 4 for n in sizes)  # and an fp32 step count for each


def _bitsandbytes_states(step: Step, sizes: list[int]) -> int:
    """Return the bytes of the states of bitsandbytes' AdamW, but for those that it pages.

    It keeps a byte for each of the two and an fp32 constant for each 256, or 32 bits below 4,096
    numbers and, by the Trainer's wish, for embeddings. Paged states are in the driver's managed
    memory, on a GPU alone: their constants are not.
    """
    narrow = step.config.optimizer != "paged_adamw_32bit"
    pages = "paged" in step.config.optimizer and step.card.device == "cuda"
    eight = [n for n in sizes if narrow and n >= 4096]
    wide = [n for n in sizes if not narrow or n < 4096]
    if step.full and eight:
        for rows in filter(None, (step.shape.vocab_size, step.shape.learned_positions)):
            eight.remove(rows * step.shape.hidden_size)
            wide.append(rows * step.shape.hidden_size)
    here = {n: not (pages and n >= PAGED_FROM) for n in sizes}
    levels = 2 * 4 * 256 * narrow  # of the two states, shared by all parameters
    states = sum(8 * n * here[n] for n in wide) + sum(2 * n * here[n] for n in eight)
    return levels + states + sum(8 * ceil(n / 256) for n in eight)


def _factored_sizes(step: Step) -> list[int]:
    """Return Adafactor's state sizes: a row and a column for a matrix (Adafactor, section 3)."""
    layers, shape = step.shape.num_hidden_layers, step.shape
    if not step.full:
        chosen = [shape.linears[name] for name in step.adapted]
        return [step.config.rank * 2 + i + o for i, o in chosen] * layers
    others = [
        prod(sides[:-1]) + prod(sides[:-2]) * sides[-1] if len(sides) > 1 else sides[0]
        for sides in other_parameters(shape)
    ]
    return [i + o for i, o in shape.linears.values()] * layers + others
