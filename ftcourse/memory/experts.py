"""A mixture of experts, as transformers computes it: grouped products of sorted tokens."""

from ftcourse.memory.graph import Tensor
from ftcourse.memory.modules import Modules


def mix(layer: Modules, x: Tensor) -> Tensor:
    """Return the sum of what each token's experts give, weighted by the router."""
    shape, tape, weights = layer.shape, layer.tape, layer.weights
    batch, length, hidden = x.shape
    tokens, choices = batch * length, batch * length * shape.num_experts_per_tok
    x = tape.view(x, tokens, hidden)
    chances, held = route(layer, x)
    with tape.module("experts"):
        order, source, *held[1:] = (tape.new((choices,), "int64") for _ in range(3))
        states = tape.op((choices, hidden), x.dtype, [x], [source], rule="matrix")
        factors = tape.op((choices, 1), chances.dtype, [chances], [order], rule="matrix")
        del source
        offsets = [tape.new((shape.num_experts,), "int32")]
        both = tape.grouped_product(states, weights["mlp.experts.gate_up_proj"], offsets)
        half = (choices, both.shape[-1] // 2)
        gate, up = tape.split(both, 2, *half)
        del both
        gated = tape.mul(layer.function(gate), up)
        del gate, up
        outputs = tape.grouped_product(gated, weights["mlp.experts.down_proj"], offsets)
        del gated
        outputs = tape.mul(outputs, factors)
        back = tape.new((choices,), "int64")
        outputs = tape.op(outputs.shape, outputs.dtype, [outputs], [back], rule="matrix")
        summed = tape.op((tokens, hidden), outputs.dtype, [outputs], rule="matrix")
        return tape.view(tape.cast(summed, x.dtype), batch, length, hidden)


def route(layer: Modules, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the chances of each token's experts, and what else the code's variables hold."""
    shape, tape = layer.shape, layer.tape
    size = (x.shape[0], shape.num_experts_per_tok)
    with tape.module("gate"):
        logits = tape.product(x, layer.weights["mlp.gate.weight"])
        chances, chosen = tape.softmax(logits), tape.new(size, "int64")
        top = tape.op(size, "float32", [chances], [chosen], rule="matrix")
        if shape.norm_topk_prob:
            top = tape.divide_by_sum(top)
        return tape.cast(top, "float32" if layer.family.routes_in_fp32 else logits.dtype), [chosen]
