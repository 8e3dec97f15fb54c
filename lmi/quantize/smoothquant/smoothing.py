"""The arithmetic of SmoothQuant (Xiao et al., 2022) on one decoder layer's tensors.

A few channels of a model's activations are a hundred times larger than the others, and with one
scale per token nothing is left of the others in 8 bits. Dividing each channel by a factor s in the
norm, and multiplying the weights that read it by s, leaves the function as it is and moves part of
the range from the activations to the weights:

    s_j = max|X_j| ** alpha / max|W_j| ** (1 - alpha)

The rule to keep: columns are multiplied by what the stored norm was *really* divided by. A gain in
16 bits can't be divided exactly; its rounding belongs into s, where 8-bit weights absorb it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from lmi.quantize.smoothquant.families import Group

# Of a factor around its mean: further away, a gain in half precision would be lost.
_WIDEST: Final = 2.0**13


def factors(activations: torch.Tensor, weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """s of each channel from the largest absolute values, all (channels), in float32.

    Their geometric mean is 1, which changes nothing in what can be quantised (the rows have scales
    of their own) and keeps the norm's gains in the range that they had. A channel that was never
    seen active, or that no weight reads, gets 1.
    """
    usable = (activations > 0) & (weights > 0)
    logs = alpha * activations.log2() - (1 - alpha) * weights.log2()
    mean = logs[usable].mean() if bool(usable.any()) else torch.zeros(())
    widest = torch.tensor(_WIDEST).log2().to(logs)
    spread = (logs - mean).clamp(-widest, widest).exp2()
    return torch.where(usable, spread, torch.ones_like(spread))


def divided_gain(
    weight: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A norm's weight divided by about `wanted`, as `dtype` can hold it, and by what it really was.

    weight, wanted: (channels) float32. offset: what the model adds to the weight. A gain that would
    round to zero keeps its channel as it was.
    """
    gain = weight + offset
    stored = (gain / wanted - offset).to(dtype).float()
    left = stored + offset
    keeps = (left != 0) & torch.isfinite(left) & (gain != 0)
    real = torch.where(keeps, gain / torch.where(keeps, left, torch.ones_like(left)), 1.0)
    return torch.where(keeps, stored, weight), real


def smooth(
    tensors: Mapping[str, torch.Tensor],
    dtypes: Mapping[str, torch.dtype],
    groups: tuple[Group, ...],
    largest: Mapping[str, torch.Tensor],
    alpha: float,
    offset: float,
) -> dict[str, torch.Tensor]:
    """A decoder layer's tensors (float32, by their names in the layer), smoothed; others as they
    are.

    dtypes: in which the norms will be stored. largest: by a group's norm, the largest absolute
    value of each of its channels.
    """
    found = dict(tensors)
    for group in groups:
        weights = [found[f"{name}.weight"] for name in group.linears]
        columns = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
        name = f"{group.norm}.weight"
        wanted = factors(largest[group.norm], columns, alpha)
        found[name], real = divided_gain(found[name], wanted, dtypes[name], offset)
        bias = f"{group.norm}.bias"
        if bias in found:
            found[bias] = found[bias] / real
        for linear, weight in zip(group.linears, weights, strict=True):
            found[f"{linear}.weight"] = weight * real
    return found
