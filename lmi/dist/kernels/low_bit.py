"""A quantised weight in one canonical form, whatever file format it came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lmi.dist.float8 import FLOAT8


@dataclass(frozen=True, slots=True, eq=False)
class LowBitWeight:
    """weight[o, i] = (values[o, i] - zeros[o, g]) * scales[o, g] with g the group of input i.

    bits: 3, 4 or 8. values: (out, in), uint8 from 0 to 2**bits - 1, or for 8 bits int8, or e4m3
    (FP8: none of them NaN, and no zeros). scales: (out, groups) float32. zeros: (out, groups)
    float32, or None where they are 0 (8 bits) or the middle of the range (2**(bits - 1), fewer
    bits). group: (in) int64 group of each input feature (act-order), or None where groups are
    consecutive runs of in / groups. activation_bits: 8 where the rows are quantised too, one scale
    per row at run time (W8A8), else None; beside FP8 weights they stay as
    they are. A checkpoint's reader makes one per layer and drops it once a `Linear` has
    packed it.
    """

    bits: int
    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None = None
    group: torch.Tensor | None = None
    activation_bits: int | None = None

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return int(self.values.shape[0])

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return int(self.values.shape[1])

    @property
    def is_float8(self) -> bool:
        """Whether the numbers are e4m3 and not whole."""
        return self.values.dtype == FLOAT8

    def groups(self) -> torch.Tensor:
        """(in) int64: the group of each input feature."""
        if self.group is not None:
            return self.group
        return torch.arange(self.in_features) // (self.in_features // self.scales.shape[1])

    def to(self, device: torch.device) -> LowBitWeight:
        """On a device."""
        zeros = None if self.zeros is None else self.zeros.to(device)
        group = None if self.group is None else self.group.to(device)
        return replace(
            self,
            values=self.values.to(device),
            scales=self.scales.to(device),
            zeros=zeros,
            group=group,
        )

    def rows(self, start: int, stop: int) -> LowBitWeight:
        """The output features [start, stop) alone."""
        zeros = None if self.zeros is None else self.zeros[start:stop]
        return replace(
            self, values=self.values[start:stop], scales=self.scales[start:stop], zeros=zeros
        )

    def columns(self, start: int, stop: int) -> LowBitWeight:
        """The input features [start, stop) alone."""
        group = self.groups()[start:stop]
        used, renumbered = torch.unique(group, return_inverse=True)
        width = (stop - start) // used.numel()
        regular = torch.arange(stop - start) // max(1, width)
        return replace(
            self,
            values=self.values[:, start:stop],
            scales=self.scales[:, used],
            zeros=None if self.zeros is None else self.zeros[:, used],
            group=None if torch.equal(renumbered, regular) else renumbered,
        )

    def dense(self) -> torch.Tensor:
        """The weight (out, in) in float32: what the quantised numbers mean."""
        index = self.groups()
        if self.zeros is not None:
            zeros = self.zeros[:, index]
        else:
            zeros = torch.tensor(0.0 if self.bits == 8 else float(1 << (self.bits - 1)))
        return (self.values.float() - zeros) * self.scales[:, index]


def side_by_side(weights: Sequence[LowBitWeight]) -> LowBitWeight | None:
    """One weight with the outputs of all, in order; None where their groups or kinds differ."""
    first = weights[0]
    for other in weights[1:]:
        same_kind = _kind(other) == _kind(first)
        same_groups = other.scales.shape[1] == first.scales.shape[1] and torch.equal(
            other.groups(), first.groups()
        )
        if not (same_kind and same_groups):
            return None
    zeros = None
    if first.zeros is not None:
        zeros = torch.cat([weight.zeros for weight in weights if weight.zeros is not None])
    return replace(
        first,
        values=torch.cat([weight.values for weight in weights]),
        scales=torch.cat([weight.scales for weight in weights]),
        zeros=zeros,
    )


def _kind(weight: LowBitWeight) -> tuple[object, ...]:
    return weight.bits, weight.values.dtype, weight.activation_bits, weight.zeros is None
