"""Tensors that know only their size, and the graph of their backward pass."""

from collections.abc import Callable, Sequence

from ftcourse.memory.ledger import History, Row

BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "uint8": 1,
    "int8": 1,
    "bool": 1,
}
Shape = tuple[int, ...]


class Storage:
    """The memory of a tensor and of all its views."""

    def __init__(self, history: History, row: Row) -> None:
        """Note the birth."""
        self.history, self.number = history, history.born(row)
        self.others: Storage | None = None
        """What lives as long as this."""

    def __del__(self) -> None:
        """Note the death: nobody holds the memory any more."""
        self.history.died(self.number)


class Tensor:
    """A shape and a format, the memory behind it, and the node of the backward pass that made it.

    Without storage it is counted elsewhere, as parameters are; without a node it needs no gradient.
    """

    __slots__ = ("dtype", "node", "shape", "storage")

    def __init__(
        self, shape: Shape, dtype: str, storage: Storage | None = None, node: "Node | None" = None
    ) -> None:
        """Hold the storage from now on."""
        self.shape, self.dtype, self.storage, self.node = shape, dtype, storage, node


class Node:
    """A step of the backward pass."""

    __slots__ = ("count", "frame", "inputs", "mark", "path", "rule", "saved", "scratch", "uses")

    def __init__(self, path: str, count: int) -> None:
        """Start in a module of the model, for so many layers."""
        self.path, self.count = path, count
        self.inputs: list[tuple[Node, Shape, str] | None] = []
        self.rule, self.scratch = "fresh", ()
        self.saved: Sequence[Storage | None] | None = ()
        self.frame: Frame | None = None
        self.mark: str | None = None
        self.uses = 0


class Leaf(Node):
    """Where gradients arrive of what no operation made, such as a trained parameter."""

    __slots__ = ("part",)

    def __init__(self, path: str, count: int, part: str = "gradients") -> None:
        """Say to which part the gradient belongs."""
        super().__init__(path, count)
        self.part = part


class Frame:
    """A checkpointed function: its operations save nothing until it runs again."""

    def __init__(self, run: Callable[[], Tensor], path: str, count: int) -> None:
        """Hold what the function needs to run again."""
        self.run, self.path, self.count = run, path, count
        self.nodes: list[Node] = []
