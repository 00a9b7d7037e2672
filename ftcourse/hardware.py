"""Cards as facts, the card of this machine, and the number format to train in on a card."""

from dataclasses import dataclass
from functools import cache

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A device that can hold a model: a GPU, or the CPU with its main memory."""

    name: str
    memory: int
    """Bytes that a program can use: what the driver reports, less than what the box says."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability, such as (7, 5) for a T4; None for a CPU."""
    context: int | None = None
    """Bytes of the CUDA context, outside of PyTorch's memory; None if we know no measurement."""

    @property
    def device(self) -> str:
        """The device string for torch: ``cuda`` or ``cpu``."""
        return "cpu" if self.capability is None else "cuda"

    def __repr__(self) -> str:
        """Return the name and the usable memory."""
        return f"{self.name} ({self.memory / GIB:.1f} GiB usable)"


def _card(name: str, gib: float, capability: tuple[int, int], context: int | None = None) -> Card:
    return Card(name, round(gib * GIB), capability, context)


# Usable GiB as torch gives it in its out-of-memory messages ("total capacity"). It differs by some
# tenths of a GiB between drivers, because the driver and error correction take their share first.
CARDS = {
    "T4": _card("Tesla T4", 14.56, (7, 5), 147_718_144),  # fitcheck's runs: 140.875 MiB in each
    "RTX 3060": _card("RTX 3060", 11.76, (8, 6)),
    "V100 16GB": _card("V100 16GB", 15.77, (7, 0)),
    "L4": _card("L4", 22.03, (8, 9)),
    "RTX 4090": _card("RTX 4090", 23.53, (8, 9)),
    "A100 40GB": _card("A100 40GB", 39.39, (8, 0)),
    "A100 80GB": _card("A100 80GB", 79.15, (8, 0)),
    "H100 80GB": _card("H100 80GB", 79.11, (9, 0)),
}


@dataclass(frozen=True)
class DtypeChoice:
    """A number format for training and why it was chosen."""

    dtype: str
    """``float32``, ``float16`` or ``bfloat16``, as torch spells them."""
    reason: str

    def __repr__(self) -> str:
        """Return the number format and the reason in one line."""
        return f"{self.dtype}: {self.reason}"


def choose_dtype(card: Card) -> DtypeChoice:
    """Return the number format to train in on this card.

    We go by compute capability. ``torch.cuda.is_bf16_supported()`` also answers True on a T4,
    where bfloat16 is only emulated and slow.

    >>> choose_dtype(CARDS["T4"])
    float16: compute capability 7.5 has fp16 tensor cores; bfloat16 needs 8.0 or newer.
    """
    if card.capability is None:
        return DtypeChoice("float32", "on a CPU, 16-bit arithmetic is often slower, not faster.")
    name = f"compute capability {card.capability[0]}.{card.capability[1]}"
    if card.capability >= (8, 0):
        return DtypeChoice(
            "bfloat16", f"{name} computes bfloat16 natively; no loss scaling needed."
        )
    if card.capability >= (7, 0):
        reason = f"{name} has fp16 tensor cores; bfloat16 needs 8.0 or newer."
        return DtypeChoice("float16", reason)
    return DtypeChoice("float32", f"{name} has no tensor cores; 16 bits would save no time.")


@cache
def detect() -> Card:
    """Return the card of this machine: the first CUDA GPU, else the CPU with its main memory."""
    import torch  # here, so that arithmetic for a card in CARDS never waits for torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        capability = facts.major, facts.minor
        contexts = {card.name: card.context for card in CARDS.values()}
        return Card(facts.name, facts.total_memory, capability, contexts.get(facts.name))
    import psutil

    return Card("CPU", psutil.virtual_memory().total)
