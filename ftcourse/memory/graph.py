"""Tensors that know only their size, and the graph of their backward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ftcourse.memory.ledger import History, Row, Shape


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


@dataclass(eq=False, slots=True)
class Tensor:
    """A shape and a format, the memory behind it, and the node of the backward pass that made it.

    Without storage it is counted elsewhere, as parameters are; without a node it needs no gradient.
    """

    shape: Shape
    dtype: str
    storage: Storage | None = None
    node: "Node | None" = None


@dataclass(eq=False, slots=True)
class Node:
    """A step of the backward pass, of a module of the model and for so many layers."""

    path: str
    count: int
    inputs: list[Tensor] = field(default_factory=list)
    """Those that get a gradient, without their memory."""
    rule: str = "fresh"
    scratch: Sequence[tuple[Shape, str, str]] = ()
    saved: Sequence[Storage | None] | None = ()
    frame: "Frame | None" = None
    mark: str | None = None
    uses: int = 0


@dataclass(eq=False, slots=True)
class Leaf(Node):
    """Where gradients arrive of what no operation made, such as a trained parameter."""

    part: str = "gradients"
    """To which part the gradient belongs."""


@dataclass(eq=False)
class Frame:
    """A checkpointed function: its operations save nothing until it runs again."""

    run: Callable[[], Tensor]
    path: str
    count: int
    nodes: list[Node] = field(default_factory=list)
