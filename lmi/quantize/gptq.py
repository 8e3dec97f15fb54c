"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): the columns of a weight are rounded one after the
other, and what each loses is made up for in those that follow.

The loss is that of the layer's outputs over the calibration text: with E the error of the weight
and H the second moments of its inputs, trace(E H E'). What column i should pass on to the others
stands in row i of the upper Cholesky factor of the inverse of H.
"""

from __future__ import annotations

from typing import Final

import torch

from lmi.core import BuildError
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.layer import canonical
from lmi.quantize.grid import Grid
from lmi.quantize.settings import ActOrder

# Added to the diagonal of H, as shares of its mean: the first that makes H invertible is taken.
DAMPINGS: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
# Columns whose errors are passed on together, where groups do not say it.
BLOCK: Final = 128


def gptq(
    weight: torch.Tensor,
    moments: torch.Tensor,
    grid: Grid,
    *,
    group_size: int,
    act_order: ActOrder,
    name: str,
) -> LowBitWeight:
    """A weight (out, in) in float32, rounded with the second moments (in, in) of its inputs.

    group_size: inputs that share a scale, -1 for all of them. name: for messages. Raises BuildError
    where the moments allow no factorisation.
    """
    inputs = weight.shape[1]
    size = inputs if group_size == -1 else group_size
    order = torch.arange(inputs, device=weight.device)
    if act_order is not ActOrder.OFF:
        order = moments.diagonal().argsort(descending=True, stable=True)
    at = torch.arange(inputs, device=weight.device)
    # The group of each column in the order of work.
    groups = (order if act_order is ActOrder.STATIC else at) // size
    importance = moments.diagonal()
    rows = weight[:, order].clone()
    factor = _factor(moments[order][:, order], name)

    count = -(-inputs // size)
    scales = torch.empty((weight.shape[0], count), device=weight.device)
    zeros = torch.empty_like(scales)
    if act_order is ActOrder.STATIC:
        for group in range(count):
            part = slice(group * size, (group + 1) * size)
            scale, zero = grid.fit(weight[:, part], importance[part])
            scales[:, group : group + 1], zeros[:, group : group + 1] = scale, zero

    numbers = torch.empty_like(rows)
    step = min(size, BLOCK)
    for first in range(0, inputs, step):
        last = min(first + step, inputs)
        if act_order is not ActOrder.STATIC and first % size == 0:
            part = slice(first, first + size)
            group = first // size
            scale, zero = grid.fit(rows[:, part], importance[order[part]])
            scales[:, group : group + 1], zeros[:, group : group + 1] = scale, zero
        numbers[:, first:last] = _block(
            rows, factor, grid, scales[:, groups[first:last]], zeros[:, groups[first:last]], first
        )

    back = order.argsort()
    group_of = groups[back]
    regular = torch.equal(group_of, at // size)
    return canonical(
        grid.bits,
        numbers[:, back].to(torch.uint8).cpu(),
        scales.cpu(),
        zeros.to(torch.uint8).cpu(),
        None if regular else group_of.cpu(),
    )


def _block(
    rows: torch.Tensor,
    factor: torch.Tensor,
    grid: Grid,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    first: int,
) -> torch.Tensor:
    """The numbers of the columns from `first` on, as many as there are scales.

    rows: changed in place; what these columns lose is made up for in the later ones.
    """
    count = scales.shape[1]
    last = first + count
    block, numbers = rows[:, first:last], torch.empty_like(scales)
    errors = torch.empty_like(scales)
    for index in range(count):
        column = first + index
        one = slice(index, index + 1)
        values, scale, zero = block[:, one], scales[:, one], zeros[:, one]
        number = grid.nearest(values, scale, zero)
        error = (values - (number - zero) * scale) / factor[column, column]
        numbers[:, one], errors[:, one] = number, error
        block[:, index + 1 :] -= error * factor[column, column + 1 : last]
    rows[:, last:] -= errors @ factor[first:last, last:]
    return numbers


def _factor(moments: torch.Tensor, name: str) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of the damped moments. Raises BuildError."""
    moments = moments.clone()
    diagonal = moments.diagonal()
    # An input that is always 0 says nothing: its column is rounded alone.
    diagonal[diagonal == 0] = 1.0
    mean = diagonal.mean()
    for damping in DAMPINGS:
        damped = moments.clone()
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and bool(torch.isfinite(upper).all()):
            return upper
    raise BuildError(
        f"{name}: the second moments of its inputs can't be inverted: give more calibration text, "
        "or of another kind"
    )
