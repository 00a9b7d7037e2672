"""PyTorch's caching allocator, written small: the bytes it takes from a GPU for a step's tensors.

It never gives memory back, and cuts it into blocks that may lie where the next tensor does not fit:
so ``reserved`` is more than ``allocated``. The rules and the sizes are those of PyTorch's
``CUDACachingAllocator`` with its default settings, on one stream.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
ROUNDING = 512
SMALL = MIB
"""Up to this size a block comes from a small segment, and only blocks above it are left whole."""


@dataclass(eq=False)
class Block:
    """A piece of a segment, in use or free, with its neighbours in the segment."""

    start: int
    size: int
    small: bool
    free: bool = False
    before: "Block | None" = None
    after: "Block | None" = None


class CachingAllocator:
    """Serves requests for bytes from segments that it takes from the GPU and keeps."""

    def __init__(self) -> None:
        """Start with nothing taken."""
        self.allocated = 0
        self.reserved = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}

    def take(self, nbytes: int) -> Block:
        """Return the smallest free block that is large enough, cut to size if much would remain."""
        size = _round_up(nbytes, ROUNDING)
        small = size <= SMALL
        free = self._free[small]
        place = bisect_left(free, (size,))
        block = free.pop(place)[-1] if place < len(free) else self._new_segment(size, small)
        if block.size - size >= (ROUNDING if small else SMALL + 1):
            self._cut(block, size)
        block.free = False
        self.allocated += block.size
        return block

    def give(self, block: Block) -> None:
        """Take a block back, and join it with its free neighbours."""
        self.allocated -= block.size
        if block.before and block.before.free:
            self._forget(block.before)
            block = _join(block.before, block)
        if block.after and block.after.free:
            self._forget(block.after)
            block = _join(block, block.after)
        self._keep(block)

    def _new_segment(self, size: int, small: bool) -> Block:
        """Take 2 MiB for small blocks, 20 MiB for those below 10 MiB, else what is needed."""
        large = 20 * MIB if size < 10 * MIB else _round_up(size, 2 * MIB)
        block = Block(self.reserved, 2 * MIB if small else large, small)
        self.reserved += block.size
        return block

    def _cut(self, block: Block, size: int) -> None:
        rest = Block(block.start + size, block.size - size, block.small, False, block, block.after)
        if rest.after:
            rest.after.before = rest
        block.size, block.after = size, rest
        self._keep(rest)

    def _keep(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.start, block))

    def _forget(self, block: Block) -> None:
        free = self._free[block.small]
        free.pop(bisect_left(free, (block.size, block.start)))


def _round_up(size: int, unit: int) -> int:
    return max(unit, -(-size // unit) * unit)


def _join(left: Block, right: Block) -> Block:
    left.size += right.size
    left.after = right.after
    if right.after:
        right.after.before = left
    return left


def replay(events: Iterable[tuple[int, int]]) -> int:
    """Return the bytes reserved after events of (storage, change in bytes), in order of time."""
    allocator, blocks = CachingAllocator(), {}
    for storage, change in events:
        if change > 0:
            blocks[storage] = allocator.take(change)
        elif change < 0:
            allocator.give(blocks.pop(storage))
    return allocator.reserved
