"""Which waiting rows make the next batch. Pure.

First come, first served: the oldest row always runs next, so none starves; younger ones join it
where the model allows it and the memory suffices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from lmi.dist.padded.row import Row


class Together(Enum):
    """Which rows a model can compute side by side without one changing the other's answer."""

    PADDED = "prompts of any lengths, padded"
    EQUAL = "prompts of one length: padding would change the answers"
    ALONE = "one at a time: rows side by side would change the answers"


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes that a batch's state takes: for each row, and for each of a row's tokens, read or
    generated."""

    row: int
    read: int
    generated: int

    def of(self, rows: int, read: int, generated: int) -> int:
        """Of `rows` rows padded to `read` prompt and `generated` answer tokens."""
        return rows * (self.row + read * self.read + generated * self.generated)


@dataclass(frozen=True, slots=True)
class Former:
    """Forms batches of at most `max_rows` rows whose state fits `budget` bytes.

    A single row always runs: if it does not fit, its own step says so.
    """

    together: Together
    max_rows: int
    cost: Cost
    budget: int

    def form(self, waiting: Iterable[Row]) -> list[Row]:
        """The next batch: the oldest row and those that may join it. waiting: oldest first."""
        batch: list[Row] = []
        read = generated = 0
        for row in waiting:
            if not batch:
                batch, read, generated = [row], len(row.source), row.room
                if row.reads_alone or self.together is Together.ALONE:
                    break
                continue
            if len(batch) == self.max_rows:
                break
            if row.reads_alone or not self._fits_beside(row, read):
                continue
            widest, longest = max(read, len(row.source)), max(generated, row.room)
            if self.cost.of(len(batch) + 1, widest, longest) > self.budget:
                break
            batch.append(row)
            read, generated = widest, longest
        return batch

    def _fits_beside(self, row: Row, read: int) -> bool:
        return self.together is Together.PADDED or len(row.source) == read
