"""Where the bytes of a training step go: what prediction, simulation, measurement return."""

from dataclasses import dataclass, field
from typing import Any

from ftcourse.hardware import GIB
from ftcourse.memory.ledger import PARTS, Ledger


@dataclass(frozen=True)
class MemoryBreakdown:
    """The bytes of a training step at its peak, in five parts that add up to ``allocated``."""

    weights: int
    """Base model and adapter, with the constants of quantized weights."""
    gradients: int
    """Gradients of the trained parameters."""
    optimizer: int
    """States that the optimizer keeps from step to step."""
    activations: int
    """Everything that the forward and the backward pass compute and still hold."""
    overhead: int
    """Buffers, the batch, weights dequantized for a moment, workspaces, rounding."""
    source: str
    """``predicted``, ``simulated``, ``measured`` or ``recorded``."""
    moment: str = ""
    """The moment of the step that holds the peak."""
    reserved: int | None = None
    """Bytes that the caching allocator took from the card; None where not known."""
    process: int | None = None
    """Reserved bytes and the CUDA context: what nvidia-smi shows; None where not known."""
    device: str = ""
    """The card, or the CPU."""
    date: str = ""
    """Day of a measurement, as YYYY-MM-DD."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library versions of a measurement."""
    note: str = ""
    """What one could take for something else, such as random weights for trained ones."""
    world_size: int = 1
    """Processes that train together; the bytes are those of one of them."""
    sharding: str = ""
    """How they share the model, such as ``fsdp``; nothing where there is one rank."""
    ledger: Ledger = field(default=Ledger(), repr=False)
    """The tensors that live at the peak; empty where only sums were written down."""

    @classmethod
    def of(cls, ledger: Ledger, **facts: Any) -> "MemoryBreakdown":
        """Return the breakdown of what lives at a moment."""
        return cls(**ledger.parts, ledger=ledger, **facts)

    @property
    def parts(self) -> dict[str, int]:
        """The five parts in bytes, always in the same order."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def allocated(self) -> int:
        """Live bytes at the peak: ``torch.cuda.max_memory_allocated``, the sum of the parts."""
        return sum(self.parts.values())

    @property
    def largest_part(self) -> str:
        """The name of the largest part."""
        return max(PARTS, key=self.parts.__getitem__)

    def __repr__(self) -> str:
        """Return the report: the five parts and their sum, and where they come from."""
        head = " ".join(filter(None, [self.source, self.device and f"on {self.device}", self.date]))
        if self.world_size > 1:
            head += f", one of {self.world_size} processes ({self.sharding})"
        if self.source == "measured" and self.device == "CPU":
            head += " (live bytes of every tensor of a real step, counted one by one)"
        lines = [f"{name:<12}{show_bytes(size):>12}" for name, size in self.parts.items()]
        total = f"{'allocated':<12}{show_bytes(self.allocated):>12}"
        peak = [f"peak at {self.moment}"] if self.moment else []
        return "\n".join([head, *lines, total, *peak, *filter(None, [self.note])])


def show_bytes(count: float, like: float | None = None) -> str:
    """Return bytes as text, in GiB (2**30) or, if they or those to compare with are fewer, in MiB.

    >>> show_bytes(3 * 2**29), show_bytes(2**27, like=3 * 2**29)
    ('1.50 GiB', '0.12 GiB')
    """
    small = abs(count if like is None else like) < GIB
    return f"{count / 2**20:,.2f} MiB" if small else f"{count / GIB:,.2f} GiB"
