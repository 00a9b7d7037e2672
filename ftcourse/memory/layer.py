"""A decoder layer of each family, written as transformers' modeling files write it."""

from collections.abc import Sequence
from typing import NamedTuple

from ftcourse.memory.graph import Tensor
from ftcourse.memory.modules import Modules
from ftcourse.shape.families import Family


class Shared(NamedTuple):
    """What all layers get beside their input."""

    rotary: Sequence[Tensor]
    """The tables that turn queries and keys by their positions: two for each type of layer that
    has its own, none where positions are learned."""
    masks: Sequence[Tensor]
    """One for each kind of layer."""
    positions: Tensor

    def of_layer(self, number: int, family: Family) -> "Shared":
        """Return what one layer gets: the mask of its window, or the one without a window."""
        if (number + 1) % family.sees_all_every:
            return self._replace(masks=self.masks[:1], rotary=self.rotary[:2])
        return self._replace(masks=self.masks[-1:], rotary=self.rotary[-2:])


class Layer(Modules):
    """One layer as a program. Local variables hold what those of the model's code hold."""

    def __call__(self, x: Tensor, shared: Shared) -> Tensor:
        """Return the layer's output for its input, of shape (batch, length, hidden_size)."""
        first, second, *others = [*self.family.layer_norms, ""]
        match self.family.norms:
            case "before":
                normed = self.norm(first, x)
                attended = self.attention(normed, shared)
                x = self.add(x, attended)
                normed = normed if self.family.holds == "both" else None
                attended = attended if self.family.holds else None
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

    def attention(self, x: Tensor, shared: Shared) -> Tensor:
        """Return attention's output, of the shape of its input."""
        shape, tape = self.shape, self.tape
        with tape.module(self.family.self_attn):
            q, k, v = self.queries_keys_values(x)
            if shared.rotary:
                q, k = self.rotate(q, *shared.rotary), self.rotate(k, *shared.rotary)
            attended = self.attend(q, k, v, shared.masks)
            batch, heads, length, width = attended.shape
            apart = self.family.partial_rotary or self.eager  # its rows are not side by side
            reshape = tape.copy if apart else tape.view
            attended = reshape(attended, batch, length, heads * width)
            out = self.linear(list(self.family.attention)[-1], attended)
            with tape.module("resid_dropout"):
                return tape.dropout(out, shape.hidden_dropout)

    def queries_keys_values(self, x: Tensor) -> list[Tensor]:
        """Return three tensors of shape (batch, heads, length, head_dim)."""
        shape, family, tape = self.shape, self.family, self.tape
        batch, length, _ = x.shape
        names, norms = list(family.attention), ("q_norm", "k_norm", "")
        fused, found = self.linear(names[0], x) if family.fused else None, []
        if fused and not family.slices:
            return tape.split(fused, 3, batch, shape.num_attention_heads, length, shape.head_dim)
        for place, norm in enumerate(norms):
            heads = shape.num_key_value_heads if place else shape.num_attention_heads
            sides = batch, heads, length, shape.head_dim
            if fused:
                found.append(tape.part(fused, *sides))
                continue
            made = self.linear(names[place], x)
            if norm and family.qk_norm == "all":
                made = self.norm(norm, made)
            made = tape.view(made, *sides)
            found.append(self.norm(norm, made) if norm and family.qk_norm == "head" else made)
        if family.qk_norm == "head_last":
            found[:2] = [self.norm(n, t) for n, t in zip(norms, found[:2], strict=False)]
        return found

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return queries or keys turned by their positions (RoFormer, section 3.2)."""
        tape, (*rows, width), turned = self.tape, x.shape, cos.shape[-1]
        rest = [tape.part(x, *rows, width - turned)] if self.family.partial_rotary else []
        x = tape.part(x, *rows, turned) if rest else x
        turned = tape.add(tape.mul(x, cos), tape.mul(self.rotate_half(x), sin))
        if self.family.rotates_in_fp32:
            turned = tape.cast(turned, x.dtype)
        return tape.concat([turned, *rest]) if rest else turned

    def rotate_half(self, x: Tensor) -> Tensor:
        """Return x with its second half, negated, before its first half."""
        tape, (*rows, width) = self.tape, x.shape
        first, second = (tape.part(x, *rows, width // 2) for _ in range(2))
        return tape.concat([tape.scale(second), first])

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
        if self.eager and self.step.config.attention != "eager":
            return self.attend_in_float32(q, k, v)
        if self.eager:
            return self.attend_eagerly(q, k, v, masks)
        saves = [tape.new((q.shape[0], *mask.shape[1:]), q.dtype) for mask in masks]
        return tape.attention(q, k, v, saves)

    def attend_eagerly(self, q: Tensor, k: Tensor, v: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return the same by scores of shape (batch, heads, length, length)."""
        tape, shape, length = self.tape, self.shape, self.step.config.max_length
        sizes = (*q.shape[:2], length, length)
        scores = tape.scale(tape.matmul(q, k, *sizes))
        if shape.attn_logit_softcapping:
            scores = tape.scale(tape.function(tape.scale(scores), saves_result=True))
        scores = tape.add(scores, *masks)
        in_fp32 = self.family.softmax_in_fp32 or (tape.autocast and tape.device == "cuda")
        chances = tape.softmax(scores, "float32" if in_fp32 else scores.dtype)
        chances = tape.dropout(tape.cast(chances, q.dtype), shape.attention_dropout)
        return tape.matmul(chances, v, *q.shape)

    def attend_in_float32(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the same as PyTorch computes it on a CPU where some scores are dropped."""
        tape, length, dtype = self.tape, self.step.config.max_length, q.dtype
        q, k, v = (tape.cast(t, "float32") for t in (tape.scale(q), tape.scale(k), v))
        autocast, tape.autocast = tape.autocast, None
        scores = tape.matmul(q, k, *q.shape[:2], length, length)
        chances = tape.dropout(tape.softmax(scores), self.shape.attention_dropout)
        out = tape.matmul(chances, v, *q.shape)
        tape.autocast = autocast
        return tape.cast(out, dtype)

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output, or that of a mixture of experts."""
        names, tape = list(self.family.mlp), self.tape
        with tape.module("mlp"):
            if self.shape.num_experts:
                return self.mix(x)
            if len(names) == 3:
                out = self.gated(x, names)
            elif "gate_up_proj" in names:
                both = self.linear(names[0], x)
                half = (*both.shape[:2], self.shape.intermediate_size)
                gate, up = tape.split(both, 2, *half)
                out = self.linear(names[1], tape.mul(up, self.function(gate)))
            else:
                out = self.linear(names[1], self.function(self.linear(names[0], x)))
            with tape.module("dropout"):
                return tape.dropout(out, self.shape.hidden_dropout)

    def gated(self, x: Tensor, names: list[str]) -> Tensor:
        """Return the MLP of Llama: SwiGLU.

        ``linear`` is a product, ``function`` is silu. Source:
        Shazeer 2020, arXiv 2002.05202, equation 6.
        """
        gate, up, down = names
        inner = self.tape.mul(
            self.function(self.linear(gate, x)),
            self.linear(up, x),
        )
        return self.linear(down, inner)
