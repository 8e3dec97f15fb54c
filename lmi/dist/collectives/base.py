"""What the ranks of one tensor-parallel model say to each other.

All ranks call the same operations in the same order. An operation that can't complete, since a rank
is gone or hangs, raises EngineDead on every other rank: within a second of a death, after the
time-out of a hang; the rank at fault is named where it can be known. After that nothing but `close`
may be called. Every sum is taken in the order of the ranks and in float32, so all ranks hold the
same bits, and an element's bits depend neither on what is summed beside it nor on which means was
chosen (on GPUs, NCCL and symmetric memory choose their own order: there the ranks only agree).
"""

from __future__ import annotations

from typing import Protocol

import torch

from lmi.dist.kernels.base import Kernels


class Collective(Protocol):
    """The operations between ranks. One thread uses them; `abort` and `close` any.

    name: what does the work ("shared memory", "gloo", "nccl", "symmetric memory"). reason: why it
    was chosen, for the log. seconds: time this rank has spent in the operations (with
    CUDA: in queueing them). kernels: compute `add_rms_norm` where the exchange has none of
    its own; plain torch until the decoder puts its own here.
    """

    name: str
    reason: str
    rank: int
    size: int
    seconds: float
    kernels: Kernels

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, in place (any float dtype, contiguous); returns the tensor."""

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """residual += the ranks' sum of delta, in place; returns the RMSNorm of the new residual.

        One pass over the memory where the implementation has it fused, else all_reduce and then the
        kernels' own. What delta holds afterwards is undefined.
        """

    def all_gather(self, columns: torch.Tensor) -> torch.Tensor:
        """(rows, columns of this rank) -> (rows, columns of all ranks side by side, in order)."""

    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's bytes (given there, None elsewhere) on every rank. Small ones are cheap.

        Followers sleep while they wait, for no longer than the collective time-out: a rank 0 that
        has nothing to say must say so now and then.
        """

    def meet(self, seconds: float) -> None:
        """Wait until all ranks are here, for ranks that load a model at different speeds.

        Raises EngineDead after `seconds`.
        """

    def abort(self, reason: str) -> None:
        """Make whoever waits in an operation raise EngineDead(reason), soon. From any thread.

        With shared memory every rank that waits, within 10 ms; else this rank, within 0.1 s: the
        others notice when its process ends.
        """

    def close(self) -> None:
        """Release memory and sockets. Idempotent; never waits for another rank."""
