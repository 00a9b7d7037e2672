"""The model around its layers as a program: embeddings, the last norm, the head, and the loss."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from ftcourse.config import LOSS_CHUNK
from ftcourse.memory.graph import Leaf, Tensor
from ftcourse.memory.layer import Layer, Shared
from ftcourse.memory.operations import Operations
from ftcourse.memory.parameters import weights_of
from ftcourse.memory.step import Step


class Model:
    """A whole forward and backward pass, with one middle layer that stands for all between."""

    def __init__(self, step: Step) -> None:
        """Start with the parameters, which the tape does not count."""
        self.step, self.shape, self.family = step, step.shape, step.shape.family
        self.tape = Operations(step.products, step.card.device)
        self.tape.accumulates = step.config.gradient_accumulation_steps > 1
        self.batch, self.length = step.config.batch_size, step.config.max_length
        self.weights = {w.name: w for w in weights_of(step)}
        self.root = self.family.layers.rpartition(".")[0]

    def run(self, all_layers: bool = False) -> Operations:
        """Run a step up to the optimizer, with few layers for all or with each; return the tape."""
        tape, last = self.tape, self.shape.num_hidden_layers - 1
        self.every = all_layers
        x = embedded = self.embed()
        shared = self.share(x)
        for number, count in self.layers().items():
            tape.history.mark("the forward pass" if number == last else "")
            x = self.run_layer(x, shared.of_layer(number, self.family), count)
            if x.node:
                x.node.mark = self.moment(number)
        tape.history.mark("the loss")
        del embedded
        loss = self.loss(x)
        del x, shared
        tape.backward(loss)
        return tape

    def layers(self) -> dict[int, int]:
        """Return the numbers of the layers to run, and for how many each of them stands.

        One stands for all between the first and the last. Where some layers see all tokens and
        others a window, the lowest that sees all runs apart: its mask lives until then.
        """
        end = self.shape.num_hidden_layers
        apart = range(end) if self.every else {0, min(self.family.sees_all_every, end) - 1, end - 1}
        starts = sorted({*apart, *(number + 1 for number in apart)} - {end})
        return {number: after - number for number, after in pairwise([*starts, end])}

    def moment(self, number: int) -> str:
        """Return what a layer's backward pass is called; one for many layers has no name."""
        ends = {0: "the first layer's", self.shape.num_hidden_layers - 1: "the last layer's"}
        names = {self.family.sees_all_every - 1: "a layer's"} | ends
        return f"{names[number]} backward pass" if number in names else ""

    def run_layer(self, x: Tensor, shared: Shared, count: int) -> Tensor:
        """Return the output of one layer, which stands for so many equal ones."""
        tape, start = self.tape, f"{self.family.layers}.*."
        ends = {name.removeprefix(start): name for name in self.weights if name.startswith(start)}
        layer = Layer(tape, self.step, {end: self.parameter(n, count) for end, n in ends.items()})
        tape.path = start[:-1]
        x = tape.several(x, count)
        tape.count = count
        checkpoints = self.step.config.gradient_checkpointing
        out = tape.checkpoint(lambda: layer(x, shared)) if checkpoints else layer(x, shared)
        tape.path, tape.count = start[:-1], 1
        return tape.one_of(out, count)

    def parameter(self, name: str, count: int = 1) -> Tensor:
        """Return a parameter as a tensor."""
        weight = self.weights[name]
        node = Leaf(name, count) if weight.trained else None
        return Tensor(weight.shape, weight.dtype, None, node)

    def embed(self) -> Tensor:
        """Return the first layer's input."""
        tape, shape, family = self.tape, self.shape, self.family
        size = (self.batch, self.length, shape.hidden_size)
        self.table = self.parameter(f"{family.tables[0]}.weight")
        with tape.module(family.tables[0]):
            x = tape.op(size, self.table.dtype, [self.table], rule="matrix")
            x = tape.scale(x) if family.scaled_embedding == "inside" else x
        if self.step.config.gradient_checkpointing and not self.step.full:
            x.node = Leaf(family.tables[0], 1, part="activations")  # because peft asks for it
            tape.kept.append(x)
        tape.path = self.root
        self.positions = tape.new((self.length,), "int64")
        x = tape.scale(x) if family.scaled_embedding == "after" else x
        if shape.learned_positions:
            positions = self.parameter(f"{family.tables[1]}.weight")
            with tape.module(family.tables[1].rpartition(".")[2]):
                sides, saves = (1, *size[1:]), [self.positions]
                added = tape.op(sides, positions.dtype, [positions], saves, rule="matrix")
            x = tape.add(x, added)
            del added
        with tape.module("drop"):
            return tape.dropout(x, shape.embedding_dropout)

    def share(self, x: Tensor) -> Shared:
        """Return what all layers get: tables that turn queries and keys, masks, positions."""
        tape, family, config = self.tape, self.family, self.step.config
        size = (1, 1, self.length, self.length)
        tape.path = self.root
        masks = []
        if config.attention == "eager":
            kinds = 1 if family.sees_all_every == 1 else 2
            masks = [tape.new((self.batch, *size[1:]), x.dtype) for _ in range(kinds)]
        elif 0 < self.shape.sliding_window < self.length and config.attention == "sdpa":
            masks = [tape.new(size, "bool")]
        positions, self.positions = self.positions, None
        tape.path = family.rotary
        dtype = "float32" if family.rotates_in_fp32 else x.dtype
        sides = (1, self.length, self.shape.rotary_width)
        turns = 0 if self.shape.learned_positions else 2 * len(self.shape.rotary_types)
        return Shared([tape.new(sides, dtype) for _ in range(turns)], masks, positions)

    def loss(self, x: Tensor) -> Tensor:
        """Return the loss of the next token."""
        tape, family, weights = self.tape, self.family, self.weights
        tape.count, tape.path = 1, family.final_norm
        ends = [n for n in weights if n.startswith(f"{family.final_norm}.")]
        x = tape.normalize(family.norm, x, [self.parameter(n) for n in ends])
        tied = "lm_head.weight" not in weights
        head = self.table if tied else self.parameter("lm_head.weight")
        bias = [self.parameter("lm_head.bias")] if family.head_bias else []
        chunked = self.step.config.loss == "chunked"
        return (self.chunked_loss if chunked else self.whole_loss)(x, head, bias)

    def whole_loss(self, x: Tensor, head: Tensor, bias: Sequence[Tensor]) -> Tensor:
        """Return the loss of all tokens at once."""
        tape = self.tape
        tape.path = "lm_head"
        logits = tape.product(x, head, bias)
        tape.path = "loss"
        if self.shape.final_logit_softcapping:
            logits = tape.scale(tape.function(tape.scale(logits), saves_result=True))
        if self.family.scales_logits:
            logits = tape.scale(logits)
        if self.step.holds_logits:
            tape.kept.append(logits)
        logits = tape.cast(logits, "float32")
        return tape.cross_entropy(tape.view(logits, prod(x.shape[:-1]), self.shape.vocab_size))

    def chunked_loss(self, x: Tensor, head: Tensor, bias: Sequence[Tensor]) -> Tensor:
        """Return the loss as ``ftcourse.loss`` computes it, one chunk standing for all between."""
        tape, (batch, length, hidden) = self.tape, x.shape
        tape.path, tokens = "loss", batch * (length - 1)
        x = tape.part(x, batch, length - 1, hidden)
        x = tape.copy(x, *x.shape) if batch > 1 else x
        x = tape.view(x, tokens, hidden)
        targets = tape.new((batch, length - 1), "int64") if batch > 1 else None
        whole, rest = divmod(tokens, LOSS_CHUNK)  # a single token predicts none
        sizes = [LOSS_CHUNK] * whole + [rest] * (rest > 0 or not whole)
        counts = [1, len(sizes) - 2, 1] if len(sizes) > 2 and not self.every else [1] * len(sizes)
        losses = []
        for size, count in zip([*sizes[: len(counts) - 1], sizes[-1]], counts, strict=True):
            tape.path, tape.count = "loss", count
            tape.history.mark("the loss" if count == 1 else "")
            chunk = tape.op((size, hidden), x.dtype, [x], rule="chunk")
            inputs = chunk, head, bias, targets
            loss = tape.checkpoint(lambda inputs=inputs: self.whole_loss(*inputs[:3]))
            loss.node.mark = "the loss" if count == 1 else ""
            losses.append(loss)
        tape.path, tape.count = "loss", 1
        return tape.scale(tape.op((), "float32", losses, rule="same"))
