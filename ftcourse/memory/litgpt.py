"""The bytes of litgpt's training step: what it holds in another way than the Trainer's.

Source: litgpt of October 2023 (``finetune/lora.py``, ``lit_gpt/lora.py``), with torch 2.1.0,
Lightning 2.1 and bitsandbytes 0.41.1.
"""

from dataclasses import replace
from math import ceil

from ftcourse.memory import MemoryBreakdown, Step
from ftcourse.memory.model import Model
from ftcourse.memory.parameters import weight_rows
from ftcourse.memory.peak import around

LOSS_CHUNK = 128
"""Tokens whose loss goes backward at a time."""


def predict_litgpt(step: Step) -> MemoryBreakdown:
    """Return the bytes of litgpt's first step, which gets the longest sequences.

    Where it differs from the Trainer's: it has its own layers (``litgpt_layer``); Lightning turns
    the logits to fp32, and they live beside their log-probabilities while the loss goes backward in
    pieces; bitsandbytes quantizes the head too, and dequantizes it in the fp16 of the
    checkpoint and again in bf16. There are no gradients and no optimizer states yet.
    """
    shape, tokens = step.shape, step.config.batch_size * step.config.max_length
    layers = shape.num_hidden_layers * (kept_by_a_layer(step) + tokens * litgpt_layer(step))
    words, head = shape.vocab_size, shape.vocab_size * shape.hidden_size
    activations = layers + 8 * words * tokens
    weights = sum(row.bytes * row.count for row in weight_rows(step))
    if step.config.method == "lora":
        return _breakdown(step, weights, activations + 8 * words * LOSS_CHUNK, 0)
    weights += quantized_bytes(head, step) - 2 * head
    return _breakdown(step, weights, activations, (2 + 2) * head)


def kept_by_a_layer(step: Step) -> int:
    """Return the bytes that one more layer of transformers keeps for its backward pass."""
    layers = step.shape.num_hidden_layers
    more = replace(step, shape=replace(step.shape, num_hidden_layers=layers + 1))
    peaks = [Model(each).run().history.peaks()["the loss"] for each in (step, more)]
    return peaks[1].parts["activations"] - peaks[0].parts["activations"]


def quantized_bytes(numbers: int, step: Step) -> int:
    """Return the bytes of a matrix in 4 bits, with its constants (QLoRA paper, section 3)."""
    blocks = ceil(numbers / 64)
    constants = blocks + 4 * ceil(blocks / 256) + 4 * 256 + 4
    return numbers // 2 + 4 * 16 + (constants if step.config.double_quant else 4 * blocks)


def litgpt_layer(step: Step) -> int:
    """Return the bytes for a token that a layer of litgpt keeps beside those of transformers.

    One module gives queries, keys and values, and the values keep all three, as they do in a family
    of transformers' with such a module; ``index_copy`` spreads the adapter's queries and values
    over them and keeps them; the adapter drops inputs at random and keeps which. bitsandbytes 0.41
    also kept the inputs of each quantized module: what each norm gives, and the MLP's last input.
    """
    shape, family = step.shape, step.shape.family
    queries_and_keys = 2 * (shape.widths["queries"] + shape.widths["keys"])
    spread = queries_and_keys * (1 if family.fused else 2)
    normed = shape.hidden_size * (1 if family.norms == "shared" else 2)
    inputs = 2 * (normed + shape.intermediate_size) * (step.config.method == "qlora")
    return spread + shape.hidden_size + inputs


def _breakdown(step: Step, weights: int, activations: int, overhead: int) -> MemoryBreakdown:
    overhead += sum(row.bytes * row.count for row in around(step))
    return MemoryBreakdown(weights, 0, 0, activations, overhead, "predicted", "the loss")
