"""The modules of a layer as programs: norms, linear modules with their adapters, and experts."""

from collections.abc import Mapping
from math import prod

from ftcourse.memory.graph import Tensor
from ftcourse.memory.ledger import Shape
from ftcourse.memory.operations import Operations
from ftcourse.memory.step import Step


class Modules:
    """The modules of one layer."""

    def __init__(self, tape: Operations, step: Step, weights: Mapping[str, Tensor]) -> None:
        """Take the layer's parameters by the end of their name, such as ``mlp.up_proj.weight``."""
        self.tape, self.step, self.weights = tape, step, weights
        self.shape, self.family = step.shape, step.shape.family

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Return the norm of the hidden states, or of queries or keys."""
        tape, weights = self.tape, self.weights
        path = f"{self.family.self_attn}.{name}" if name in ("q_norm", "k_norm") else name
        parameters = [weights[p] for p in (f"{path}.weight", f"{path}.bias") if p in weights]
        with tape.module(name):
            return tape.normalize(self.family.norm, x, parameters)

    def function(self, x: Tensor) -> Tensor:
        """Return the MLP's function; gelu_new is written in Python, with a power in it."""
        tape = self.tape
        with tape.module(self.family.act_fn):
            if self.shape.hidden_act != "gelu_new":
                return tape.function(x)
            half, y = tape.scale(x), tape.function(tape.wide(x))  # x / 2, and the third power
            y = tape.scale(y)
            y = tape.add(x, y)
            y = tape.scale(y)
            y = tape.function(y, saves_result=True)  # tanh
            y = tape.scale(y)
            return tape.mul(half, y)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Return a linear module's result, with its adapter's update if it has one.

        peft casts the input to the adapter's format; its layers for quantized weights do so only
        where they see no autocast, and they look for that of a GPU.
        """
        tape, step, weights = self.tape, self.step, self.weights
        path = self.family.path_of(name)
        with tape.module(name.split(".")[-1]):
            result = self.base(path, x)
            if name not in step.adapted:
                return result
            result = tape.clone(result) if step.bits == 4 else result
            dtype, adapter = result.dtype, step.config.adapter_dtype
            casts = not step.bits or not step.products or tape.device == "cpu"
            inputs = tape.cast(x, adapter) if casts else x
            with tape.module("lora_dropout"):
                update = tape.dropout(inputs, step.config.lora_dropout)
            for matrix in ("lora_A", "lora_B"):
                with tape.module(matrix):
                    update = tape.product(update, weights[f"{path}.{matrix}.weight"])
            update = tape.scale(update)
            update = tape.cast(update, dtype) if casts and step.bits else update
            result = tape.add(result, update)
            del update
            return result if step.bits else tape.cast(result, dtype)

    def base(self, path: str, x: Tensor) -> Tensor:
        """Return the product with the module's own weight, quantized or not."""
        tape, step, weights = self.tape, self.step, self.weights
        weight = weights[f"{path}.weight"]
        bias = [weights[f"{path}.bias"]] if f"{path}.bias" in weights else []
        if not step.bits:
            return tape.product(x, weight, bias)
        shape = (*x.shape[:-1], prod(weight.shape) // x.shape[-1])
        if step.bits == 8:
            return self.int8_product(x, weight, shape)
        narrow = tape.cast(x, step.dtype)
        dequantized = [(weight.shape, step.dtype, "overhead")]
        out = tape.op(shape, step.dtype, [narrow], rule="matrix", scratch=dequantized)
        return tape.cast(out, x.dtype)

    def int8_product(self, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        """Return LLM.int8's product (section 3); its module keeps x in an attribute.

        On a GPU x becomes one byte a number, and the products are summed in int32. On a CPU
        bitsandbytes multiplies by the dequantized weight, in autocast's format.
        """
        tape = self.tape
        if tape.device == "cpu":
            dtype, held = tape.autocast or x.dtype, [tape.new(weight.shape, x.dtype)]
        else:
            dtype, half = x.dtype, [tape.new(x.shape, "float16")] * (x.dtype != "float16")
            held = [tape.new(x.shape, "int8"), tape.new(x.shape[:-1], "float32")]
            del half
            held.append(tape.new(shape, "int32"))
        scratch = [(weight.shape, x.dtype, "activations")]
        out = tape.op(shape, dtype, [x], rule="matrix", scratch=scratch)
        del held
        if out.node:
            tape.kept.append(x)
        return out

    def mix(self, x: Tensor) -> Tensor:
        """Return the weighted sum of what each token's experts give: products of sorted tokens."""
        shape, tape, weights = self.shape, self.tape, self.weights
        batch, length, hidden = x.shape
        tokens, choices = batch * length, batch * length * shape.num_experts_per_tok
        x = tape.view(x, tokens, hidden)
        chances, held = self.route(x)
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
            gated = tape.mul(self.function(gate), up)
            del gate, up
            outputs = tape.grouped_product(gated, weights["mlp.experts.down_proj"], offsets)
            del gated
            outputs = tape.mul(outputs, factors)
            back = tape.new((choices,), "int64")
            outputs = tape.op(outputs.shape, outputs.dtype, [outputs], [back], rule="matrix")
            summed = tape.op((tokens, hidden), outputs.dtype, [outputs], rule="matrix")
            return tape.view(tape.cast(summed, x.dtype), batch, length, hidden)

    def route(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the chances of each token's experts, and what else the code's variables hold."""
        shape, tape = self.shape, self.tape
        size = (x.shape[0], shape.num_experts_per_tok)
        with tape.module("gate"):
            logits = tape.product(x, self.weights["mlp.gate.weight"])
            chances, chosen = tape.softmax(logits), tape.new(size, "int64")
            top = tape.op(size, "float32", [chances], [chosen], rule="matrix")
            if shape.norm_topk_prob:
                top = tape.divide_by_sum(top)
            dtype = "float32" if self.family.routes_in_fp32 else logits.dtype
            return tape.cast(top, dtype), [chosen]
