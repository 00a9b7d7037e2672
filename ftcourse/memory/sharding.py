"""A training step on one of several ranks: what it stores, and what it gathers for a moment.

In FSDP (PyTorch's ``fully_shard``) a rank stores shards. It gathers a unit's parameters before
they are needed, and the next unit's while the one at hand computes. In the backward pass a unit's
gradients are whole for a moment; then their sum over all ranks is cut into shards again.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from ftcourse.memory.communication import LINKS, Link, Traffic, communication, seconds_on
from ftcourse.memory.graph import Leaf, Node, Tensor
from ftcourse.memory.layer import Shared
from ftcourse.memory.model import Model
from ftcourse.memory.operations import Operations
from ftcourse.memory.parameters import weights_of
from ftcourse.memory.step import Step
from ftcourse.memory.units import Ranks, shard, shards_of, travels, units

__all__ = ["LINKS", "Link", "ShardedModel", "Traffic", "communication", "seconds_on", "shard"]


class ShardedTape(Operations):
    """A tape on which a unit comes before its backward pass, and its gradients leave after it."""

    def __init__(self, model: "ShardedModel") -> None:
        """Start with all units sharded."""
        super().__init__(None, model.step.card.device)
        self.model = model
        self.enter: dict[Node, tuple[str, str]] = {}
        """Before which node a unit is gathered, and which one is gathered ahead with it."""
        self.leave: dict[Node, tuple[str, int]] = {}
        """Before which node the gradients of so many units are complete."""

    def product(self, x: Tensor, weight: Tensor, bias: Iterable[Tensor] = ()) -> Tensor:
        """Return the product; before that of the head runs back, the last layer is gathered."""
        out = super().product(x, weight, bias)
        if self.path == "lm_head" and out.node and self._again is None:
            self.enter[out.node] = "tail", "layer"
            if self.model.head_alone and x.node:
                self.leave[x.node] = "tail", 1
        return out

    def backward(self, loss: Tensor) -> None:
        """Run all nodes back; before the first, the model lets go of its last buffer."""
        self.model.behind = self.model.copies = None
        super().backward(loss)
        self.model.finish()

    def _run(self, node: Node, gradient: Tensor) -> None:
        self.cross(node)
        super()._run(node, gradient)

    def cross(self, node: Node) -> None:
        """Leave one unit and enter the one below, if a node is the border between two."""
        if left := self.leave.pop(node, None):
            self.model.reduce(*left)
        if node.mark is not None:
            self.history.mark(node.mark)
        if entered := self.enter.pop(node, None):
            self.model.gather_back(*entered)

    def _keep(self, leaf: Leaf, gradient: Tensor) -> None:
        self.cross(leaf)
        super()._keep(leaf, gradient)
        place = self.model.place.get(leaf.path)
        if place and not self.accumulates:
            self.model.whole.setdefault(place, [[]])[-1].append(self.gradients.pop())


class ShardedModel(Model):
    """A model of which this rank holds shards; it gathers the units as PyTorch's FSDP does."""

    def __init__(self, step: Step, ranks: Ranks) -> None:
        """Start as the model that computes in one format, without autocast."""
        config = replace(step.config, adapter_dtype=step.dtype, upcast=False)
        alone = step if step.dtype == "float32" else replace(step, config=config, autocast=False)
        super().__init__(alone)
        self.own, self.ranks, self.units = step, ranks, units(step)
        self.place = {w.name: key for key, unit in self.units.items() for w in unit.weights}
        self.head_alone = [w.name for w in self.units["tail"].weights] == ["lm_head.weight"]
        self.tape = ShardedTape(self)
        self.tape.accumulates = step.config.gradient_accumulation_steps > 1
        self.gathered: dict[str, Tensor] = {}
        self.copies: Tensor | None = None
        self.behind: Tensor | None = None
        """The buffer of the unit that was gathered last."""
        self.ahead: dict[str, Tensor] = {}
        """Buffers of units that are gathered while the one above runs back."""
        self.whole: dict[str, list[list[Tensor]]] = {}
        """Gradients of units, of the last one last, before they are summed up over the ranks."""
        self.sent: Tensor | None = None
        self.shards: list[Tensor] = []
        self.summed: list[Tensor | None] = []
        self.started = False

    def layers(self) -> dict[int, int]:
        """Return the layers to run; the second and the last but one run apart.

        Their neighbours are gathered beside them, and between them the bytes only rise or fall.
        """
        end = self.shape.num_hidden_layers
        apart = {number for number in (1, 2, end - 2, end - 1) if 0 < number < end}
        return {n: after - n for n, after in pairwise([*sorted({*super().layers(), *apart}), end])}

    def moment(self, number: int) -> str:
        """Return what a layer's backward pass is called."""
        names = {self.shape.num_hidden_layers - 2: "the last but one", 1: "the second"}
        inner = f"{names[number]} layer's backward pass" if number in names else ""
        return super().moment(number) or inner

    def hold(self, name: str, size: int) -> Tensor | None:
        """Return a buffer of so many bytes, if they are more than none."""
        tape = self.tape
        if not size:
            return None
        outer = tape.path, tape.count
        tape.path, tape.count = name, 1
        buffer = tape.new((size,), "uint8", "overhead")
        tape.path, tape.count = outer
        return buffer

    def receive(self, key: str) -> Tensor | None:
        """Return the buffer into which all ranks send their shards of a unit."""
        unit = self.units[key]
        cast = self.hold(f"{unit.name}: cast", unit.cast_bytes(self.own, self.ranks))
        size = unit.gathered_bytes(self.own, self.ranks)
        buffer = self.hold(f"{unit.name}: all-gather's buffer", size)
        del cast
        return buffer

    def copy_apart(self, key: str) -> None:
        """Copy a unit from its buffer to the parameters."""
        unit = self.units[key]
        size = unit.gathered_bytes(self.own, self.ranks)
        self.gathered[key] = self.hold(f"{unit.name}: gathered", size)

    def gather(self, key: str) -> None:
        """Gather a unit in the forward pass; only then is the buffer of the one before freed."""
        if key in self.units:
            buffer = self.receive(key)
            self.copy_apart(key)
            self.behind = buffer

    def free(self, key: str) -> None:
        """Free a unit after its forward pass, unless it stays for the backward pass."""
        if key in self.units and self.units[key].frees:
            del self.gathered[key]

    def gather_back(self, key: str, ahead: str) -> None:
        """Gather a unit in the backward pass, and begin to gather the one below."""
        if key in self.units and key not in self.gathered:
            buffer = self.ahead.pop(key, None) or self.receive(key)
            self.copy_apart(key)
            del buffer
        if ahead in self.units:
            self.ahead[ahead] = self.receive(ahead)

    def reduce(self, key: str, count: int = 1) -> None:
        """Free a unit, sum its gradients over all ranks, and keep this rank's shard of them."""
        unit = self.units[key]
        self.gathered.pop(key, None)
        self.sent = None  # what the unit above sent
        if key not in self.whole:
            return
        size = unit.reduced_bytes(self.own, self.ranks)
        self.sent = self.hold(f"{unit.name}: reduce-scatter's buffer", size)
        self.whole[key].pop()
        if not self.whole[key]:
            del self.whole[key]
        mine = [w for w in shards_of(self.own, self.ranks) if self.place[w.name] == key]
        mine, dtype = [w for w in mine if w.trained], self.own.dtype
        narrow = dtype != "float32" and any(w.dtype != dtype for w in mine)
        summed = self.hold(f"{unit.name}: sum", narrow * count * size // self.ranks.shards)
        for weight in mine:
            self.tape.path, self.tape.count = weight.name, count
            self.shards.append(self.tape.new(weight.shape, weight.dtype, "gradients"))
        if self.ranks.copies > 1:  # where the sum over nodes is still being sent
            self.summed.append(summed)

    def remember(self) -> None:
        """Hold the gradients of the batches before, which are whole until the last one's join."""
        for weight in filter(lambda weight: weight.trained, weights_of(self.own)):
            counts = [1] if weight.count == 1 else list(self.layers().values())
            found = self.whole.setdefault(self.place[weight.name], [[] for _ in counts])
            for tensors, count in zip(found, counts, strict=True):
                self.tape.path, self.tape.count = weight.name, count
                tensors.append(self.tape.new(weight.shape, travels(weight, self.own), "gradients"))
        self.tape.path, self.tape.count = "", 1

    def embed(self) -> Tensor:
        """Return the first layer's input, with the embeddings gathered."""
        if self.tape.accumulates:
            self.remember()
        if self.tape.device == "cpu":  # accelerate's copies of the batch; own_rows has one of them
            self.copies = self.hold("batch", 8 * self.batch * self.length * (2 - self.own.full))
        first = "embedding" if "embedding" in self.units else "tail"
        self.gather("root")
        self.gather(first)
        x = super().embed()
        self.free(first)
        if x.node and first == "embedding":
            self.tape.enter[x.node] = first, ""
        return x

    def run_layer(self, x: Tensor, shared: Shared, count: int) -> Tensor:
        """Return the output of a layer that is gathered for it."""
        ahead = "layer" if self.started else "embedding"
        self.started = True
        self.gather("layer")
        if x.node:
            self.tape.leave[x.node] = "layer", count
        out = super().run_layer(x, shared, count)
        self.free("layer")
        if out.node:
            self.tape.enter[out.node] = "layer", ahead
        return out

    def loss(self, x: Tensor) -> Tensor:
        """Return the loss, with the head gathered."""
        if "embedding" in self.units:
            self.gather("tail")
            if x.node and not self.head_alone:
                self.tape.leave[x.node] = "tail", 1
        return super().loss(x)

    def finish(self) -> None:
        """Sum up what is left when the backward pass is over, and free all units."""
        self.tape.history.mark("the last exchange of gradients")
        for key in ("root", "embedding", "tail", "layer"):
            if key in self.gathered or key in self.whole:
                self.reduce(key)
        self.sent = None
        self.summed.clear()
        self.ahead.clear()
