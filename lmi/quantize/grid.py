"""The numbers that a low-bit weight can be: a scale and a zero point for each group of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

# Shares of a group's range that a search tries: a smaller range has finer steps and cuts off more.
SHRINKS: Final = tuple(1 - step / 40 for step in range(21))
# The smallest scale that half precision, in which files keep them, still holds to a few percent,
# and the largest that it holds at all.
_LEAST, _MOST = 2.0**-20, 65504.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Whole numbers of some bits.

    symmetric: zero is the middle of the range. least_zero: the smallest zero point; a GPTQ file
    (version 1) stores zero points less one, and its readers don't agree what 0 becomes.
    """

    bits: int
    symmetric: bool
    least_zero: int = 0

    @property
    def top(self) -> int:
        """The largest number."""
        return (1 << self.bits) - 1

    def fit(
        self, block: torch.Tensor, importance: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales and zero points (rows, 1) for (rows, columns), as a file will hold them.

        They cover all numbers; with importance (columns), the range is cut to where the squared
        error, weighted by it, is least.
        """
        low, high = block.amin(1, keepdim=True).clamp(max=0), block.amax(1, keepdim=True).clamp(0)
        best_scale, best_zero = self._over(low, high)
        if importance is None:
            return best_scale, best_zero
        least = self._error(block, best_scale, best_zero, importance)
        for shrink in SHRINKS[1:]:
            scale, zero = self._over(low * shrink, high * shrink)
            error = self._error(block, scale, zero, importance)
            better = error < least
            least = torch.where(better, error, least)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero, best_zero)
        return best_scale, best_zero

    def nearest(
        self, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
    ) -> torch.Tensor:
        """The numbers, 0 to `top`, as floats."""
        return (torch.round(values / scale) + zero).clamp(0, self.top)

    def rounded(
        self, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
    ) -> torch.Tensor:
        """The values that the numbers mean."""
        return (self.nearest(values, scale, zero) - zero) * scale

    def _over(self, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point whose numbers reach from low (at most 0) to high (at least 0)."""
        if self.symmetric:
            scale = _storable(2 * torch.maximum(-low, high) / self.top)
            return scale, torch.full_like(scale, float(1 << (self.bits - 1)))
        scale = _storable((high - low) / self.top)
        zero = torch.round(-low / scale).clamp(0, self.top)
        lifted = zero < self.least_zero
        scale = torch.where(lifted, _storable(high / (self.top - self.least_zero)), scale)
        return scale, zero.clamp(min=float(self.least_zero))

    def _error(
        self,
        block: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor,
        importance: torch.Tensor,
    ) -> torch.Tensor:
        return (self.rounded(block, scale, zero) - block).square().mul(importance).sum(1, True)


def _storable(scale: torch.Tensor) -> torch.Tensor:
    """Rounded to half precision; a group of zeros, or of nearly that, has a scale too."""
    return scale.clamp(_LEAST, _MOST).half().float()
