"""Where the bytes of a training step go: the breakdown, and its prediction by arithmetic."""

from dataclasses import dataclass, field

GIB = 2**30
PARTS = ("weights", "gradients", "optimizer", "activations", "overhead")


@dataclass(frozen=True)
class MemoryBreakdown:
    """The bytes of a training step at its peak, in five parts that add up to ``allocated``.

    One noun for three verbs: a prediction, a simulation and a measurement all return it.
    """

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
    """Card or CPU of a measurement."""
    date: str = ""
    """Day of a measurement, as YYYY-MM-DD."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library versions of a measurement."""

    @property
    def allocated(self) -> int:
        """Live bytes at the peak: ``torch.cuda.max_memory_allocated``, the sum of the parts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The five parts in bytes, always in the same order."""
        return {name: getattr(self, name) for name in PARTS}


def does_not_fit(config, card):
    raise NotImplementedError
