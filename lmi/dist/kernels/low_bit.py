"""A quantised weight in one canonical form, whatever file format it came in."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class LowBitWeight:
    """weight[o, i] = (values[o, i] - zeros[o, g]) * scales[o, g] with g the group of input i.

    bits: 3, 4 or 8. values: (out, in), uint8 from 0 to 2**bits - 1, or int8 for 8 bits. scales:
    (out, groups) float32. zeros: (out, groups) float32, or None where they are 0 (8 bits) or the
    middle of the range (2**(bits - 1), fewer bits). group: (in) int64 group of each input feature
    (act-order), or None where groups are consecutive runs of in / groups. activation_bits: 8 where
    the rows are quantised too, one scale per row at run time (W8A8), else None. A checkpoint's
    reader makes one per layer and drops it once a `Linear` has packed it.
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

    def dense(self) -> torch.Tensor:
        """The weight (out, in) in float32: what the quantised numbers mean."""
        groups = self.scales.shape[1]
        index = self.group
        if index is None:
            index = torch.arange(self.in_features) // (self.in_features // groups)
        if self.zeros is not None:
            zeros = self.zeros[:, index]
        else:
            zeros = torch.tensor(0.0 if self.bits == 8 else float(1 << (self.bits - 1)))
        return (self.values.float() - zeros) * self.scales[:, index]
