"""A decoder layer of each family, written as transformers' modeling files write it."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from ftcourse.memory.operations import Operations
from ftcourse.memory.step import Step
from ftcourse.memory.tape import Tensor


class Shared(NamedTuple):
    """What all layers get beside their input."""

    rotary: Sequence[Tensor]
    """The tables that turn queries and keys by their positions; none where these are learned."""
    masks: Sequence[Tensor]
    positions: Tensor


class Layer:
    """One layer as a program. Local variables hold what those of the model's code hold."""

    def __init__(self, tape: Operations, step: Step, weights: Mapping[str, Tensor]) -> None:
        """Take the layer's parameters by the end of their name, such as ``mlp.up_proj.weight``."""
        self.tape, self.step, self.weights = tape, step, weights
        self.shape, self.family = step.shape, step.shape.family

    def __call__(self, x: Tensor, shared: Shared) -> Tensor:
        """Return the layer's output for its input, of shape (batch, length, hidden_size)."""
        first, second, *others = [*self.family.layer_norms, ""]
        match self.family.norms:
            case "before":
                normed = self.norm(first, x)
                attended = self.attention(normed, shared)
                x = self.add(x, attended)
                if not self.family.holds_halves:
                    del normed, attended
                return self.add(x, self.mlp(self.norm(second, x)))
            case "after":
                x = self.add(x, self.norm(first, self.attention(x, shared)))
                return self.add(x, self.norm(second, self.mlp(x)))
            case "around":
                third, fourth, _ = others
                x = self.add(x, self.norm(second, self.attention(self.norm(first, x), shared)))
                return self.add(x, self.norm(fourth, self.mlp(self.norm(third, x))))
            case "parallel":
                attended = self.attention(self.norm(first, x), shared)
                return self.add(self.add(self.mlp(self.norm(second, x)), attended), x)
            case "shared":
                normed = self.norm(first, x)
                attended = self.attention(normed, shared)
                return self.add(self.add(attended, self.mlp(normed)), x)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return the residual plus what a half of the layer adds to it."""
        return self.tape.add(residual, self.tape.scale(x) if self.family.scaled else x)

    # --- attention ----------------------------------------------------------------------------

    def attention(self, x: Tensor, shared: Shared) -> Tensor:
        """Return attention's output, of the shape of its input."""
        shape, tape = self.shape, self.tape
        with tape.module(self.family.self_attn):
            q, k, v = self.queries_keys_values(x)
            if self.family.qk_norm == "head":
                q, k = self.norm("q_norm", q), self.norm("k_norm", k)
            if shared.rotary:
                q, k = self.rotate(q, *shared.rotary), self.rotate(k, *shared.rotary)
            attended = self.attend(q, k, v, shared.masks)
            batch, heads, length, width = attended.shape
            if self.family.partial_rotary or self.eager:  # its rows are not side by side
                attended = tape.copy(attended, batch, length, heads * width)
            else:
                attended = tape.view(attended, batch, length, heads * width)
            out = self.linear(list(self.family.attention)[-1], attended)
            with tape.module("resid_dropout"):
                return tape.dropout(out, shape.hidden_dropout)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return three tensors of shape (batch, heads, length, head_dim)."""
        shape, tape, names = self.shape, self.tape, list(self.family.attention)
        batch, length, _ = x.shape
        heads, width = shape.num_attention_heads, shape.head_dim
        counts = heads, shape.num_key_value_heads, shape.num_key_value_heads
        if self.family.fused:
            fused = self.linear(names[0], x)
            return tuple(tape.part(fused, batch, n, length, width) for n in counts)
        q, k, v = (self.linear(name, x) for name in names[:3])
        if self.family.qk_norm == "all":
            q, k = self.norm("q_norm", q), self.norm("k_norm", k)
        return tuple(
            tape.view(t, batch, n, length, width) for t, n in zip((q, k, v), counts, strict=True)
        )

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return queries or keys turned by their positions (RoFormer, section 3.2)."""
        tape, (*rows, width), turned = self.tape, x.shape, cos.shape[-1]
        rest = [tape.part(x, *rows, width - turned)] if self.family.partial_rotary else []
        x = tape.part(x, *rows, turned) if rest else x
        halves = [tape.part(x, *rows, turned // 2) for _ in range(2)]
        other = tape.concat([tape.scale(halves[1]), halves[0]])
        del halves
        turned = tape.add(tape.mul(x, cos), tape.mul(other, sin))
        if self.family.rotates_in_fp32:
            turned = tape.cast(turned, x.dtype)
        return tape.concat([turned, *rest]) if rest else turned

    @property
    def eager(self) -> bool:
        """Whether attention writes all its scores to memory."""
        on_cpu = self.step.card.device == "cpu" and self.shape.attention_dropout > 0
        return self.step.config.attention == "eager" or on_cpu

    def attend(self, q: Tensor, k: Tensor, v: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return what each query gets of the values. Keys are repeated where the kernel asks.

        That is with a mask, and before compute capability 8.0, where the flash kernel does not run.
        """
        capability, tape = self.step.card.capability, self.tape
        repeats = masks or (capability and capability < (8, 0))
        grouped = self.shape.num_key_value_heads < self.shape.num_attention_heads
        if (repeats or self.eager) and grouped:
            k, v = tape.copy(k, *q.shape), tape.copy(v, *q.shape)
        if self.eager:
            return self.attend_eagerly(q, k, v, masks)
        saves = [tape.new((q.shape[0], *mask.shape[1:]), q.dtype) for mask in masks]
        return tape.attention(q, k, v, saves)

    def attend_eagerly(self, q: Tensor, k: Tensor, v: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return the same by scores of shape (batch, heads, length, length)."""
        tape, shape, length = self.tape, self.shape, self.step.config.max_length
        sizes = (*q.shape[:2], length, length)
        if self.step.config.attention == "sdpa":  # PyTorch's own code for the CPU, all in float32
            q, k, v = (tape.cast(t, "float32") for t in (q, k, v))
        scores = tape.scale(tape.matmul(q, k, *sizes))
        if shape.attn_logit_softcapping:
            scores = tape.scale(tape.function(tape.scale(scores), saves_result=True))
        scores = tape.add(scores, *masks[:1])
        chances = tape.cast(tape.softmax(scores), q.dtype)
        chances = tape.dropout(chances, shape.attention_dropout)
        return tape.matmul(chances, v, *q.shape)

    # --- the MLP ------------------------------------------------------------------------------

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output, or that of a mixture of experts."""
        names, tape = list(self.family.mlp), self.tape
        with tape.module("mlp"):
            if self.shape.num_experts:
                return self.experts(x)
            if not self.family.gated:
                out = self.linear(names[1], self.function(self.linear(names[0], x)))
            elif len(names) == 2:
                both = self.linear(names[0], x)
                half = (*both.shape[:2], self.shape.intermediate_size)
                gate, up = tape.part(both, *half), tape.part(both, *half)
                out = self.linear(names[1], tape.mul(up, self.function(gate)))
            else:
                gate, up, down = names
                gated = self.function(self.linear(gate, x))
                out = self.linear(down, tape.mul(gated, self.linear(up, x)))
            with tape.module("dropout"):
                return tape.dropout(out, self.shape.hidden_dropout)

    def function(self, x: Tensor) -> Tensor:
        """Return the MLP's function; gelu_new is written in Python, with a power in it."""
        tape = self.tape
        with tape.module(self.family.act_fn):
            if self.shape.hidden_act != "gelu_new":
                return tape.function(x)
            half, cube = tape.scale, tape.function  # as one expression: nothing else holds a part
            return tape.mul(
                half(x),
                tape.scale(
                    tape.function(
                        tape.scale(tape.add(x, tape.scale(cube(tape.wide(x))))), saves_result=True
                    )
                ),
            )

    def experts(self, x: Tensor) -> Tensor:
        """Return the sum of what each token's experts give, weighted by the router."""
        shape, tape, weights = self.shape, self.tape, self.weights
        batch, length, hidden = x.shape
        tokens, chosen = batch * length, batch * length * shape.num_experts_per_tok
        x = tape.view(x, tokens, hidden)
        with tape.module("gate"):
            routed = tape.product(x, weights["mlp.gate.weight"])
            chances = tape.softmax(routed)
        return x, chosen, chances

    # --- modules ------------------------------------------------------------------------------

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Return the norm of the hidden states, or of queries or keys."""
        tape, weights = self.tape, self.weights
        path = f"{self.family.self_attn}.{name}" if name in ("q_norm", "k_norm") else name
        parameters = [weights[p] for p in (f"{path}.weight", f"{path}.bias") if p in weights]
        with tape.module(name):
            return normalize(tape, self.family.norm, x, parameters)

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
            inputs, dtype, adapter = x, result.dtype, weights[f"{path}.lora_A.weight"].dtype
            casts = not step.bits or not step.products or tape.device == "cpu"
            x = tape.cast(x, adapter) if casts else x
            update = tape.dropout(x, step.config.lora_dropout)
            for matrix in ("lora_A", "lora_B"):
                with tape.module(matrix):
                    update = tape.product(update, weights[f"{path}.{matrix}.weight"])
            update = tape.scale(update)
            update = tape.cast(update, dtype) if casts and step.bits else update
            del inputs
            return tape.cast(tape.add(result, update), result.dtype if step.bits else dtype)

    def base(self, path: str, x: Tensor) -> Tensor:
        """Return the product with the module's own weight, quantized or not."""
        tape, step, weights = self.tape, self.step, self.weights
        weight = weights[f"{path}.weight"]
        bias = [weights[f"{path}.bias"]] if f"{path}.bias" in weights else []
        if not step.bits:
            return tape.product(x, weight, bias)
        shape = (*x.shape[:-1], prod(weight.shape) // x.shape[-1])
        dtype, part = (step.dtype, "overhead") if step.bits == 4 else (x.dtype, "activations")
        dequantized = [(weight.shape, dtype, part)]
        if step.bits == 8:
            out = tape.op(shape, x.dtype, [x], rule="matrix", scratch=dequantized)
            if out.node:
                tape.kept.append(x)
            return out
        narrow = tape.cast(x, dtype)
        out = tape.op(shape, dtype, [narrow], rule="matrix", scratch=dequantized)
        return tape.cast(out, x.dtype)


def normalize(tape: Operations, kind: str, x: Tensor, parameters: list[Tensor]) -> Tensor:
    """Return a norm of one of the kinds that ``Family.norm`` names."""
    match kind:
        case "layer":
            return tape.layer_norm(x, parameters)
        case "bare":
            return tape.cast(tape.layer_norm(tape.cast(x, "float32")), x.dtype)
        case "rms":
            (weight,) = parameters
            quotient = tape.divide_by_rms(tape.cast(x, "float32"))
            return tape.mul(weight, tape.cast(quotient, x.dtype))
        case "rms_fp32":
            (weight,) = parameters
            quotient = tape.divide_by_rms(tape.cast(x, "float32"))
            return tape.cast(tape.mul(quotient, weight), x.dtype)
        case "rms_plus_one":
            (weight,) = parameters
            quotient = tape.divide_by_rms(tape.cast(x, "float32"))
            factor = tape.scale(tape.cast(weight, "float32"))
            return tape.cast(tape.mul(quotient, factor), x.dtype)
