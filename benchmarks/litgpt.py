"""The bytes of litgpt's training step: what it holds in another way than the Trainer's.

Source: litgpt of October 2023 (``finetune/lora.py``, ``lit_gpt/lora.py``), with torch 2.1.0,
Lightning 2.1 and bitsandbytes 0.41.1.
"""

from ftcourse.memory.activations import layer_activations

from ftcourse.memory import MemoryBreakdown
from ftcourse.memory.parameters import quantized_bytes, weight_bytes
from ftcourse.memory.peak import cublas_workspaces
from ftcourse.memory.step import Step

LOSS_CHUNK = 128
"""Tokens whose loss goes backward at a time."""


def predict_litgpt(step: Step) -> MemoryBreakdown:
    """Return the bytes of litgpt's first step, which gets the longest sequences.

    Where it differs from the Trainer's: it has its own layers (``litgpt_layer``); Lightning turns
    the logits to fp32, and they live beside their log-probabilities while the loss goes backward in
    pieces; bitsandbytes quantizes the head too, and dequantizes it in the fp16 of the
    checkpoint and again in bf16. There are no gradients and no optimizer states yet.
    """
    shape, tokens = step.shape, step.tokens
    layers = shape.num_hidden_layers * tokens * (layer_activations(step) + litgpt_layer(step))
    words, head = shape.vocab_size, shape.vocab_size * shape.hidden_size
    activations, weights = layers + 8 * words * tokens, weight_bytes(step)
    if step.config.method == "lora":
        return _breakdown(step, weights, activations + 8 * words * LOSS_CHUNK, 0)
    weights += quantized_bytes(head, words, step.config) - 2 * head
    return _breakdown(step, weights, activations, (2 + 2) * head)


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
    overhead += sum(cublas_workspaces(step.card))
    return MemoryBreakdown(weights, 0, 0, activations, overhead, "predicted", "the loss")
