"""A training step on one of several ranks: what it stores, and what it gathers for a moment.

In FSDP (PyTorch's ``fully_shard``) a rank stores shards. It gathers a unit's parameters before
they are needed, and the next unit's while the one at hand computes. In the backward pass a unit's
gradients are whole for a moment; then their sum over all ranks is cut into shards again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ftcourse.memory import parameters
from ftcourse.memory.communication import LINKS, Link, Traffic, communication, seconds_on
from ftcourse.memory.graph import Leaf, Node, Tensor
from ftcourse.memory.layer import Shared
from ftcourse.memory.ledger import BYTES, Row
from ftcourse.memory.model import Model
from ftcourse.memory.operations import Operations
from ftcourse.memory.step import Step
from ftcourse.memory.units import Ranks, buckets, shard, shards_of, units

__all__ = ["LINKS", "Link", "ShardedModel", "Traffic", "communication", "own_rows", "seconds_on"]


def own_rows(rows: Iterable[Row], step: Step, ranks: Ranks) -> Iterator[Row]:
    """Yield what one rank holds through the whole step, of what one alone would hold."""
    stored = {weight.name: weight for weight in shards_of(step, ranks)}
    trained = [weight for weight in stored.values() if weight.trained]
    if step.card.device == "cpu" and step.full:  # accelerate's "cpu:0" is not "cpu": a copy
        tokens = (step.config.batch_size, step.config.max_length)
        yield Row.of("batch", tokens, "int64", "overhead")
    if ranks.shards == 1:
        yield from rows
        yield from buckets(step)
        return
    for row in rows:
        if row.part == "weights" and row.name in stored:
            yield _shard_of(row, stored[row.name].dtype, step, ranks)
        elif row.part not in ("optimizer", "gradients"):
            yield row
    yield from parameters.optimizer_rows(step, trained)


def _shard_of(row: Row, dtype: str, step: Step, ranks: Ranks) -> Row:
    """Return the row of a parameter's shards; 4-bit weights are cut in the products' format."""
    if row.dtype != "uint8":
        return Row.of(row.name, shard(row.shape, ranks.shards), dtype, row.part, row.count)
    width = BYTES[step.dtype]
    packed = shard((-(-row.shape[0] // width), 1), ranks.shards)
    return Row.of(row.name, packed, step.dtype, row.part, row.count)


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
        return out

    def backward(self, loss: Tensor) -> None:
        """Run all nodes back; before the first, the model lets go of its last buffer."""
        self.model.behind = None
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
            self.model.whole.setdefault(place, []).append(self.gradients.pop())


class ShardedModel(Model):
    """A model of which this rank holds shards; it gathers the units as PyTorch's FSDP does."""

    def __init__(self, step: Step, ranks: Ranks) -> None:
        """Start as the model that computes in one format, without autocast."""
        config = replace(step.config, adapter_dtype=step.dtype, upcast=False)
        alone = step if step.dtype == "float32" else replace(step, config=config, autocast=False)
        super().__init__(alone)
        self.own, self.ranks, self.units = step, ranks, units(step)
        self.place = {w.name: key for key, unit in self.units.items() for w in unit.weights}
        self.tape = ShardedTape(self)
        self.tape.accumulates = step.config.gradient_accumulation_steps > 1
        self.gathered: dict[str, Tensor] = {}
        self.behind: Tensor | None = None
        """The buffer of the unit that was gathered last."""
        self.ahead: dict[str, Tensor] = {}
        """Buffers of units that are gathered while the one above runs back."""
        self.whole: dict[str, list[Tensor]] = {}
        """Gradients of units, before they are summed up over the ranks."""
        self.sent: Tensor | None = None
        self.shards: list[Tensor] = []
        self.started = False

    def layers(self) -> dict[int, int]:
        """Return the layers to run; the second runs apart, as the first is gathered beside it."""
        found = super().layers()
        if found.get(1, 1) > 1:
            found |= {1: 1, 2: found[1] - 1}
        return dict(sorted(found.items()))

    def moment(self, number: int) -> str:
        """Return what a layer's backward pass is called."""
        return super().moment(number) or "the second layer's backward pass" * (number == 1)

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
        del self.whole[key]
        for weight in shards_of(self.own, self.ranks):
            if weight.trained and self.place[weight.name] == key:
                self.tape.path, self.tape.count = weight.name, count
                self.shards.append(self.tape.new(weight.shape, weight.dtype, "gradients"))

    def embed(self) -> Tensor:
        """Return the first layer's input, with the embeddings gathered."""
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
            if x.node and len(self.units["tail"].weights) > 1:
                self.tape.leave[x.node] = "tail", 1
        return super().loss(x)

    def finish(self) -> None:
        """Sum up what is left when the backward pass is over, and free all units."""
        self.tape.history.mark("the last exchange of gradients")
        for key in ("root", "embedding", "tail", "layer"):
            if key in self.gathered or key in self.whole:
                self.reduce(key)
        self.sent = None
        self.ahead.clear()
