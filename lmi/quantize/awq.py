"""AWQ (Lin et al., 2023, arXiv:2306.00978): columns that meet large inputs are scaled up before
they are rounded, so that they lose less, and what makes these inputs is scaled down.

How far is searched: the scales are powers of the inputs' size, with and without the weights' own
size taken out, and those are kept with which the layers' outputs over the calibration text lose
least. Then each group's range is cut to where its error, weighted by its inputs, is least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.layer import canonical
from lmi.quantize.grid import Grid

STEPS: Final = 20  # powers that are tried, from 0 to 1
_LEAST: Final = 1e-4


def scales_for(
    weights: Sequence[torch.Tensor], moments: torch.Tensor, grid: Grid, group_size: int
) -> torch.Tensor:
    """The scales (in) of the columns of weights (out, in) that read the same input.

    moments: (in, in), of the input. All ones where no scaling does better.
    """
    best, least = torch.ones_like(moments.diagonal()), _loss(weights, moments, grid, group_size)
    for scales in _candidates(weights, moments, group_size):
        loss = _loss(weights, moments, grid, group_size, scales)
        if loss < least:
            best, least = scales, loss
    return best


def nearest(
    weight: torch.Tensor, moments: torch.Tensor, grid: Grid, group_size: int
) -> LowBitWeight:
    """A weight (out, in), rounded group by group over ranges that suit its inputs' moments."""
    blocks, scale, zero = _fitted(weight, grid, group_size, moments.diagonal())
    numbers = grid.nearest(blocks, scale, zero).reshape(weight.shape)
    rows = weight.shape[0]
    return canonical(
        grid.bits,
        numbers.to(torch.uint8).cpu(),
        scale.reshape(rows, -1).cpu(),
        zero.reshape(rows, -1).to(torch.uint8).cpu(),
        None,
    )


def _candidates(
    weights: Sequence[torch.Tensor], moments: torch.Tensor, group_size: int
) -> Iterator[torch.Tensor]:
    inputs = moments.diagonal().sqrt()
    rows = torch.cat(list(weights))
    size = rows.shape[1] if group_size == -1 else group_size
    # Of each column, its mean share of the largest weight in its group.
    blocks = rows.abs().unflatten(1, (-1, size))
    shares = (blocks / blocks.amax(2, keepdim=True).clamp(_LEAST)).flatten(1).mean(0)
    for step in range(1, STEPS + 1):
        power = step / STEPS
        for found in (inputs**power, inputs**power / shares.clamp(_LEAST) ** (1 - power)):
            found = found.clamp(min=_LEAST)
            yield found / (found.max() * found.min()).sqrt()


def _loss(
    weights: Sequence[torch.Tensor],
    moments: torch.Tensor,
    grid: Grid,
    group_size: int,
    scales: torch.Tensor | None = None,
) -> float:
    """The squared error of all outputs."""
    total = 0.0
    for weight in weights:
        scaled = weight if scales is None else weight * scales
        blocks, scale, zero = _fitted(scaled, grid, group_size, None)
        rounded = grid.rounded(blocks, scale, zero).reshape(weight.shape)
        lost = (rounded if scales is None else rounded / scales) - weight
        total += float(((lost @ moments) * lost).sum())
    return total


def _fitted(
    weight: torch.Tensor, grid: Grid, group_size: int, importance: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weight as (out * groups, inputs of a group), and scale and zero point of each row."""
    size = weight.shape[1] if group_size == -1 else group_size
    blocks = weight.reshape(-1, size)
    each = None
    if importance is not None:
        each = importance.reshape(1, -1).expand_as(weight).reshape(-1, size)
    scale, zero = grid.fit(blocks, each)
    return blocks, scale, zero
