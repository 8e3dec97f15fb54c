"""The second half of a layer: two linear layers around a gate (SwiGLU: Shazeer, 2020)."""

from __future__ import annotations

from typing import Protocol

import torch

from lmi.dist.kernels.base import Kernels, Linear


class Mlp(Protocol):
    """(rows, hidden) -> (rows, hidden): this rank's part of the sum."""

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor: ...


class GatedMlp:
    """down(silu(gate) * up)."""

    __slots__ = ("_down", "_gate_up", "_kernels")

    def __init__(self, kernels: Kernels, gate_up: Linear, down: Linear) -> None:
        self._kernels = kernels
        self._gate_up = gate_up
        self._down = down

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        return self._down(self._kernels.silu_mul(self._gate_up(rows)))
