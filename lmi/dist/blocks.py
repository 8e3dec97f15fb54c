"""Which KV blocks are free, and how many sequences share each: numbers only, no memory.

Block 0 is never given out: padding in a block table points there, so that a padded read stays in
memory that exists and holds finite numbers.

A block that nobody owns is free. If an index knows its content (`lmi.dist.prefix`), it is only
given out when no other is left, the longest unused first: until then somebody may share it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

TRASH_BLOCK: Final = 0


class BlockIndex(Protocol):
    """Who knows what is in the blocks."""

    def knows(self, block: int, /) -> bool:
        """Whether the block is worth keeping when nobody owns it."""

    def forget(self, block: int, /) -> None:
        """The block's content is about to change; an unknown one is ignored."""


class BlockPool:
    """The block numbers 1 to `total` and the number of owners of each.

    tainted: those of which `taint` was said and that still have owners; for others to read.
    """

    __slots__ = ("_dirty", "_free", "_idle", "_index", "_owners", "tainted", "total")

    def __init__(self, total: int, index: BlockIndex) -> None:
        self.total = total
        self._index = index
        self._free = list(range(total, TRASH_BLOCK, -1))  # a stack: the last freed is warm in cache
        self._idle: OrderedDict[int, None] = OrderedDict()  # known and without owner, oldest first
        self._owners = [0] * (total + 1)
        self.tainted: set[int] = set()
        self._dirty: list[int] = []

    @property
    def free(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that are owned by somebody."""
        return self.total - self.free

    def idle(self, blocks: Iterable[int]) -> int:
        """How many of these blocks count as free: sharing them takes them away from the others."""
        return sum([block in self._idle for block in blocks])

    def owners(self, block: int) -> int:
        """How many own this block."""
        return self._owners[block]

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks. The caller has looked at `free`: too few is a bug, an IndexError."""
        if count > self.free:
            raise IndexError(f"{count} KV blocks wanted, {self.free} free")
        free = self._free
        if count > len(free):
            self._evict(count - len(free))
        start = len(free) - count
        taken = free[start:]
        del free[start:]
        taken.reverse()
        for block in taken:
            self._owners[block] = 1
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Become one more owner of blocks whose content is wanted."""
        for block in blocks:
            self._owners[block] += 1
            self._idle.pop(block, None)

    def deallocate(self, blocks: list[int]) -> None:
        """Give blocks back, the caller's share in each."""
        # From the end: of a prompt's blocks the last are worth least, since they need all before.
        for block in reversed(blocks):
            self._owners[block] -= 1
            if self._owners[block]:
                continue
            if block in self.tainted:
                self.tainted.remove(block)
                self._dirty.append(block)
            elif self._index.knows(block):
                self._idle[block] = None
            else:
                self._free.append(block)

    def taint(self, blocks: Iterable[int]) -> None:
        """Say that owned blocks may hold numbers that are not finite: nobody new will share them,
        and whoever owns one last leaves it to `take_dirty`."""
        for block in blocks:
            self._index.forget(block)
            self.tainted.add(block)

    def take_dirty(self) -> list[int]:
        """Tainted blocks that nobody owns any more. The caller zeroes them: they are free now."""
        dirty, self._dirty = self._dirty, []
        self._free += dirty
        return dirty

    def _evict(self, count: int) -> None:
        """Turn the longest unused known blocks into unknown free ones."""
        for _ in range(count):
            block, _ = self._idle.popitem(last=False)
            self._index.forget(block)
            self._free.append(block)
