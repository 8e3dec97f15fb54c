"""The KV blocks that are free: numbers only, the memory is in `lmi.dist.kv`.

Block 0 is never given out: padding in a block table points there, so that a padded read stays in
memory that exists and holds finite numbers.
"""

from __future__ import annotations

from typing import Final

TRASH_BLOCK: Final = 0


class BlockPool:
    """A stack of free block numbers 1 to `total`; the most recently freed are given out first."""

    __slots__ = ("_free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total, TRASH_BLOCK, -1))

    @property
    def free(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that are owned by somebody."""
        return self.total - len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks. The caller has looked at `free`: too few is a bug, an IndexError."""
        if count > len(self._free):
            raise IndexError(f"{count} KV blocks wanted, {len(self._free)} free")
        start = len(self._free) - count
        taken = self._free[start:]
        del self._free[start:]
        taken.reverse()
        return taken

    def deallocate(self, blocks: list[int]) -> None:
        """Give blocks back. Each must be owned by the caller."""
        self._free.extend(reversed(blocks))
