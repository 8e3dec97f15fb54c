"""What the ranks of one tensor-parallel model say to each other.

All ranks call the same operations in the same order. An operation that can't complete, since a rank
is gone or hangs, raises EngineDead on every other rank: within a second of a death, after the
time-out of a hang. Every sum is taken in the order of the ranks, so all ranks hold the same bits.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Collective(Protocol):
    """The operations between ranks.

    name: what does the work ("shared memory", "gloo", "nccl", "symmetric memory"). reason: why it
    was chosen, for the log. seconds: time this rank has spent in the operations.
    """

    name: str
    reason: str
    rank: int
    size: int
    seconds: float

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, in place (any float dtype, contiguous); returns the tensor."""

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """residual += the ranks' sum of delta, in place; returns the RMSNorm of the new residual.

        One pass over the memory where the implementation has it fused, else all_reduce and then the
        kernels' own.
        """

    def all_gather(self, columns: torch.Tensor) -> torch.Tensor:
        """(rows, columns of this rank) -> (rows, columns of all ranks side by side, in order)."""

    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's bytes (given there, None elsewhere) on every rank. Small ones are cheap."""

    def close(self) -> None:
        """Release memory and sockets. Idempotent; never waits for another rank."""
