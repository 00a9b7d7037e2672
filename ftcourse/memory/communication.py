"""What the ranks of a run send to each other in a step, and how long a link needs for it."""

from collections.abc import Iterator
from dataclasses import dataclass

from ftcourse.config import FinetuneConfig, check_run
from ftcourse.errors import CourseError
from ftcourse.hardware import Card, detect
from ftcourse.memory.breakdown import show_bytes
from ftcourse.memory.step import Step
from ftcourse.memory.units import Ranks, as_ranks, buckets, units
from ftcourse.shape import load_shape


@dataclass(frozen=True)
class Sent:
    """What one rank sends in a step by one kind of collective operation."""

    collective: str
    """``all-gather``, ``reduce-scatter`` or ``all-reduce``."""
    what: str
    bytes: int
    calls: int


@dataclass(frozen=True)
class Traffic:
    """What one rank sends in a step; it receives as much."""

    rows: tuple[Sent, ...]

    @property
    def bytes_per_step(self) -> int:
        """The bytes of all rows."""
        return sum(row.bytes for row in self.rows)

    def __repr__(self) -> str:
        """Return a table with one line for each row, and the sum."""
        lines = [
            f"{show_bytes(row.bytes):>14}  {row.calls:>4} x  {row.collective:<15} {row.what}"
            for row in self.rows
        ]
        return "\n".join([*lines, f"{show_bytes(self.bytes_per_step):>14}  a step"])


def communication(
    config: FinetuneConfig,
    world_size: int,
    sharding: str = "ddp",
    gpus_per_node: int = 8,
    card: Card | None = None,
) -> Traffic:
    """Return what one rank sends in a step, by collective operation.

    All ranks form a ring, in which each sends its neighbour what the others still lack: with n
    ranks (n - 1) / n of what is gathered or summed up, and twice that for an all-reduce, which does
    both (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002). A few numbers more, such as the
    gradients' norm, are left out.
    """
    check_run(config, card)
    ranks = as_ranks(config, world_size, sharding, gpus_per_node)
    step = Step(config, load_shape(config.model), card or detect())
    if ranks.world_size == 1:
        return Traffic(())
    rows = _averaged(step, ranks) if ranks.shards == 1 else _sharded(step, ranks)
    return Traffic(tuple(rows))


def in_a_ring(size: int, processes: int) -> int:
    """Return the bytes that one process sends.

    With them all processes together gather, or sum up, a
    tensor of ``size`` bytes. Each sends to its neighbour.

    >>> in_a_ring(1000, 2), in_a_ring(1000, 8)
    (500, 875)
    """
    return size * (processes - 1) // processes


def _averaged(step: Step, ranks: Ranks) -> Iterator[Sent]:
    """Yield what DDP sends: all gradients, once a step, bucket by bucket."""
    sizes = [row.bytes for row in buckets(step)]
    sent = sum(2 * in_a_ring(size, ranks.world_size) for size in sizes)
    yield Sent("all-reduce", "gradients", sent, len(sizes))


def _sharded(step: Step, ranks: Ranks) -> Iterator[Sent]:
    """Yield what FSDP sends: parameters for each pass over a batch, gradients once a step."""
    batches = step.config.gradient_accumulation_steps
    for unit in units(step).values():
        passes = batches * unit.layers
        size = in_a_ring(unit.gathered_bytes(step, ranks), ranks.shards)
        yield Sent("all-gather", f"{unit.name}, forward", size * passes, passes)
        if unit.frees:
            yield Sent("all-gather", f"{unit.name}, backward", size * passes, passes)
    for unit in units(step).values():
        if size := unit.reduced_bytes(step, ranks):
            sent = in_a_ring(size, ranks.shards) * unit.layers
            yield Sent("reduce-scatter", f"{unit.name}, gradients", sent, unit.layers)
            if ranks.copies > 1:
                sent = 2 * in_a_ring(size // ranks.shards, ranks.copies) * unit.layers
                yield Sent("all-reduce", f"{unit.name}, between nodes", sent, unit.layers)


@dataclass(frozen=True)
class Link:
    """A connection between cards or machines."""

    bytes_per_second: float
    """In one direction, as its maker gives it; real transfers reach less."""
    source: str


_PCIE = "PCI-SIG, PCI Express Base Specification: lanes x transfers x 128 / 130 bits"
_ETHERNET = "IEEE 802.3: bits a second / 8"
LINKS = {
    "PCIe 3.0 x16": Link(16 * 8e9 * 128 / 130 / 8, _PCIE),
    "PCIe 4.0 x16": Link(16 * 16e9 * 128 / 130 / 8, _PCIE),
    "PCIe 5.0 x16": Link(16 * 32e9 * 128 / 130 / 8, _PCIE),
    "NVLink, A100": Link(300e9, "NVIDIA A100 datasheet: 600 GB/s, both directions together"),
    "NVLink, H100": Link(450e9, "NVIDIA H100 datasheet: 900 GB/s, both directions together"),
    "ethernet 10G": Link(10e9 / 8, _ETHERNET),
    "ethernet 100G": Link(100e9 / 8, _ETHERNET),
    "InfiniBand NDR": Link(400e9 / 8, "NVIDIA ConnectX-7 datasheet: 400 Gb/s a port"),
}
"""Links by name. Those of PCIe and NVLink are one card's, ethernet and InfiniBand one port's."""


def seconds_on(traffic: Traffic, link: Link) -> float:
    """Return the seconds that a link is busy with a step's traffic, at its full speed.

    A lower bound: computing may hide a part of it, and real links reach less than they promise.
    """
    if not isinstance(traffic, Traffic) or not isinstance(link, Link):
        raise CourseError(
            "seconds_on takes what communication returned, and one of LINKS.",
            f"{type(traffic).__name__} and {type(link).__name__}",
            "Try seconds_on(communication(config, 2, 'fsdp'), LINKS['PCIe 4.0 x16']).",
        )
    return traffic.bytes_per_step / link.bytes_per_second
