"""The prefix cache: full KV blocks are found again by their tokens and all that come before them.

A block's name is a SHA-256 over the name of the block before it and its own tokens, so it stands
for the whole text up to its end, and nobody can make two texts of one name: a client never reads
the KV of other tokens than its own. (The idea is vLLM's automatic prefix caching; SGLang's
RadixAttention keeps a tree of the tokens instead.)

Rules that a later editor must keep:
- A block is named only when it is full and the step that wrote it has succeeded (`record`).
- A named block is never written again: whoever shares it continues in a block of its own.
- Whatever else decides a block's content (an adapter, another model) must go into ROOT's place.
- Names are compared, never ordered, and no Python hash decides anything: all ranks of a tensor
  parallel group must find the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Final, Protocol

from lmi.dist.sequence import Sequence

ROOT: Final = b""  # the name of what lies before a first block


class Prefixes(Protocol):
    """Where a sequence may find KV that was computed before. Also a `BlockIndex`."""

    def find(self, sequence: Sequence, most: int, /) -> list[int]:
        """The blocks that hold the sequence's leading tokens, at most `most` of these."""

    def record(self, sequence: Sequence, tainted: AbstractSet[int], /) -> None:
        """Take note of the sequence's blocks that its `done` tokens have filled.

        tainted: blocks that may hold numbers that are not finite; nobody new shall have them.
        """

    def knows(self, block: int, /) -> bool:
        """Whether `find` may give this block."""

    def forget(self, block: int, /) -> None:
        """Never give this block again."""


class NoPrefixes:
    """Nothing is found, nothing is kept."""

    def find(self, _sequence: Sequence, _most: int, /) -> list[int]:
        """No block."""
        return []

    def record(self, _sequence: Sequence, _tainted: AbstractSet[int], /) -> None:
        """Ignored."""

    def knows(self, _block: int, /) -> bool:
        """None."""
        return False

    def forget(self, _block: int, /) -> None:
        """Ignored."""


class PrefixCache:
    """Names of full blocks. Each block has one name, each name one block."""

    __slots__ = ("_block_size", "_blocks", "_names")

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._blocks: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}

    def find(self, sequence: Sequence, most: int, /) -> list[int]:
        """The longest known run of full blocks from the start, within the first `most` tokens."""
        found: list[int] = []
        for index in range(most // self._block_size):
            block = self._blocks.get(self._name(sequence, index))
            if block is None:
                break
            found.append(block)
        return found

    def record(self, sequence: Sequence, tainted: AbstractSet[int], /) -> None:
        """Name the blocks that are full now. A text that has a block already keeps that one."""
        full = sequence.done // self._block_size
        while sequence.recorded < full:
            index = sequence.recorded
            sequence.recorded += 1
            name, block = self._name(sequence, index), sequence.blocks[index]
            if name not in self._blocks and block not in tainted:
                self._blocks[name] = block
                self._names[block] = name

    def knows(self, block: int, /) -> bool:
        """Whether the block has a name."""
        return block in self._names

    def forget(self, block: int, /) -> None:
        """Take the block's name away, if it has one."""
        name = self._names.pop(block, None)
        if name is not None:
            del self._blocks[name]

    def _name(self, sequence: Sequence, index: int) -> bytes:
        """The name of the sequence's block `index`. Made once: tokens never change."""
        names = sequence.block_names
        size = self._block_size
        while len(names) <= index:
            start = len(names) * size
            tokens = array("i", sequence.tokens[start : start + size]).tobytes()
            names.append(sha256((names[-1] if names else ROOT) + tokens).digest())
        return names[index]
