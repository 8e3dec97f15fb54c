"""The part of a `Collective` that carries bytes: all that leading and following need of it."""

from __future__ import annotations

from typing import Protocol


class Line(Protocol):
    """From rank 0 to all others; see `lmi.dist.collectives.base.Collective`."""

    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's bytes on every rank. Raises EngineDead."""

    def close(self) -> None:
        """Release everything."""
