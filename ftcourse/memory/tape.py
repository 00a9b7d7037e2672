"""A small autograd on tensors that know only their size: what lives in a step, and until when.

A program that is written with these operations reads like the model's own code. A tensor dies when
nobody holds it any more, as in Python and PyTorch; what an operation saves for its backward pass
is held until that pass has run. ``history`` notes each birth and each death.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import prod

from ftcourse.memory.graph import Frame, Leaf, Node, Storage, Tensor
from ftcourse.memory.ledger import History, Row, Shape


class AllSavedError(Exception):
    """A function that runs again has saved all that is needed, so PyTorch stops it there."""


class Tape:
    """Runs a program forward, and then backward."""

    def __init__(self, autocast: str | None, device: str) -> None:
        """Start with nothing alive. ``autocast`` is the format of products, None without it."""
        self.history, self.autocast, self.device = History(), autocast, device
        self.count, self.path = 1, ""
        self.kept: list[Tensor] = []
        """What modules keep in attributes until the whole backward pass is over."""
        self.gradients: list[Tensor] = []
        self.accumulates = False
        """Whether gradients are there from an earlier batch, and new ones are added to them."""
        self._nodes: list[Node] = []
        self._buffers: dict[Node, Tensor] = {}
        self._chunks: dict[Node, list[Tensor]] = {}
        self._frame: Frame | None = None
        self._again: list[Node] | None = None
        self.casts: dict[Node, Tensor] = {}
        """The 16-bit copies of leaves that autocast made and may use again."""

    @contextmanager
    def module(self, name: str) -> Iterator[None]:
        """Name what is made inside after a module of the model."""
        outer, self.path = self.path, f"{self.path}.{name}".strip(".")
        yield
        self.path = outer

    def new(self, shape: Shape, dtype: str, part: str = "activations") -> Tensor:
        """Return a tensor that needs no gradient."""
        row = Row.of(self.path, shape, dtype, part, self.count)
        return Tensor(shape, dtype, Storage(self.history, row))

    def op(
        self,
        shape: Shape,
        dtype: str,
        inputs: Sequence[Tensor],
        saves: Sequence[Tensor] = (),
        *,
        saves_result: bool = False,
        rule: str = "fresh",
        scratch: Sequence[tuple[Shape, str, str]] = (),
    ) -> Tensor:
        """Return the result of an operation, and note what its backward pass needs.

        ``saves`` are the tensors that autograd saves, beside the result if ``saves_result``;
        ``scratch`` are shape, format and part of what the backward pass needs for a moment. The
        rule says what the result is, and what gradient each input gets:

        - fresh: a new one in the result's format, summed up where the input was spread out
        - cast, matrix: a new one in the input's own shape and format; a bias gets a sum
        - same: that of the result
        - view: the result lies in the input's memory, and so does its gradient
        - part: the result lies in the input's memory, but its gradient is new, with zeros
        - chunk: as a view, but the gradients of all chunks wait and are joined
        - join: inputs that are joined get parts of the result's
        """
        make = partial(self._result, shape, dtype, inputs, rule)
        parents = [Tensor(x.shape, x.dtype, node=x.node) for x in inputs if x.node]
        if not parents:
            return make()
        if self._again is not None:
            return self._op_again(make, saves, saves_result)
        node = Node(self.path, self.count, parents, rule, scratch)
        for x in parents:
            x.node.uses += 1
        out = make()
        out.node = node
        held = [*saves, out] if saves_result else saves
        if self._frame is None:
            node.saved = [x.storage for x in held]
        elif held:
            node.saved, node.frame = None, self._frame
            self._frame.nodes.append(node)
        self._nodes.append(node)
        return out

    def _op_again(
        self, make: Callable[[], Tensor], saves: Sequence[Tensor], saves_result: bool
    ) -> Tensor:
        """Give the node of the first run what it did not save then; stop after the last one."""
        node = self._again.pop(0) if saves or saves_result else Node(self.path, self.count)
        node.saved = [x.storage for x in saves]
        if saves and not saves_result and not self._again:
            raise AllSavedError
        out = make()
        out.node = node
        if saves_result:
            node.saved.append(out.storage)
            if not self._again:
                raise AllSavedError
        return out

    def _result(self, shape: Shape, dtype: str, inputs: Sequence[Tensor], rule: str) -> Tensor:
        if rule in ("view", "part", "chunk"):
            return Tensor(shape, dtype, inputs[0].storage)
        return self.new(shape, dtype)

    def several(self, x: Tensor, count: int) -> Tensor:
        """Return the input of so many layers: x, which is the first one's, and as many more."""
        if count == 1:
            return x
        self.count = count - 1
        storage = self.new(x.shape, x.dtype).storage
        storage.others = x.storage
        return Tensor(x.shape, x.dtype, storage, x.node)

    def one_of(self, x: Tensor, count: int) -> Tensor:
        """Return the output of the last of so many layers, which alone is still needed."""
        if count == 1:
            return x
        return Tensor(x.shape, x.dtype, self.new(x.shape, x.dtype).storage, x.node)

    def checkpoint(self, run: Callable[[], Tensor]) -> Tensor:
        """Run a function that saves nothing now and runs again when the backward pass arrives."""
        self._frame = Frame(run, self.path, self.count)
        out = run()
        self._frame = None
        return out

    def backward(self, loss: Tensor) -> None:
        """Run all nodes from the last to the first; the gradients of parameters stay."""
        self.casts.clear()  # autocast ended with the forward pass
        self.path, self.count = "step", 1
        first = self.new(loss.shape, loss.dtype)  # which PyTorch holds until the end
        self._buffers = {loss.node: first}
        while self._nodes:
            node = self._nodes.pop()
            if node in self._buffers:
                self._run(node, self._buffers.pop(node))
        self.kept.clear()

    def _run(self, node: Node, gradient: Tensor) -> None:
        """Make the gradients of a node's inputs, then let go of what the node saved."""
        if node.mark is not None:
            self.history.mark(node.mark)
        if node.saved is None:
            self._run_again(node.frame)
        self.path, self.count = f"{node.path} (backward)", node.count
        scratch = [self.new(*facts) for facts in node.scratch]
        chunks = self._chunks.pop(node, None)
        made = [self._gradient(node, gradient, x) for x in node.inputs]
        del scratch, chunks
        if node.frame:  # what ran again is held by nobody else; what was saved stays a moment more
            node.saved = ()
        for place, x in enumerate(node.inputs):
            if (made[place].shape, made[place].dtype) != (x.shape, x.dtype):
                made[place] = self._new_for(node, x, x.shape, x.dtype)  # summed up, or cast
        del gradient
        node.saved, node.frame = (), None
        for x in node.inputs:
            found = made.pop(0)
            self._arrive(node, x, found)

    def _gradient(self, node: Node, gradient: Tensor, x: Tensor) -> Tensor:
        """Return an input's gradient; where the input was spread out, it is not yet summed up."""
        rule, numbers, theirs = node.rule, prod(x.shape), prod(gradient.shape)
        if rule in ("view", "chunk", "join") or (rule == "same" and numbers == theirs):
            return Tensor(x.shape, gradient.dtype, gradient.storage)
        if rule == "same" or (rule == "matrix" and len(x.shape) == 1):
            return gradient
        if rule == "fresh":
            shape = gradient.shape if numbers < theirs else x.shape
            return self._new_for(node, x, shape, gradient.dtype)
        return self._new_for(node, x, x.shape, x.dtype)

    def _new_for(self, node: Node, x: Tensor, shape: Shape, dtype: str) -> Tensor:
        """Return a new gradient; between a layer and one that stands for many there is one."""
        self.count = min(node.count, x.node.count)
        return self.new(shape, dtype)

    def _arrive(self, node: Node, x: Tensor, found: Tensor) -> None:
        """Add a gradient to the one that waits for a node; a parameter waits for all its uses."""
        parent = x.node
        parent.uses -= 1
        waiting = self._buffers.pop(parent, None)
        if node.rule == "chunk":
            self._chunks.setdefault(parent, []).append(found)
        elif waiting is not None:
            found = self._new_for(node, x, x.shape, x.dtype)
        if isinstance(parent, Leaf) and not parent.uses:
            self._keep(parent, found)
        else:
            self._buffers[parent] = found

    def _keep(self, leaf: Leaf, gradient: Tensor) -> None:
        """Keep a leaf's gradient, or add it to the one that is there from the batch before."""
        if self.accumulates:
            return
        self.gradients.append(gradient)
        rows, number = self.history.rows, gradient.storage.number
        rows[number] = replace(rows[number], name=leaf.path, part=leaf.part)

    def _run_again(self, frame: Frame) -> None:
        """Run a checkpointed function again, up to where all that it saves is there."""
        self.path, self.count, self._again = frame.path, frame.count, frame.nodes
        kept, self.kept = self.kept, []
        with suppress(AllSavedError):
            frame.run()
        self.kept, self._again = kept, None
        self.casts.clear()
