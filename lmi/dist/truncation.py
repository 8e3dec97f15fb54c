"""Which tokens top-k, top-p and min-p leave, as one threshold per row: those at least as likely.

So equally likely tokens stay or go together, and nothing depends on how a sort orders them. Only
values are sorted, never ids, and only as many as can matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lmi.dist.cumulative import chunk_sums
from lmi.dist.messages import CoreRequest

SORTED: Final = 512  # values: below this a sort is cheaper than another selection


def is_truncated(request: CoreRequest) -> bool:
    """Whether some tokens can't be drawn."""
    return request.top_k > 0 or request.top_p < 1.0 or request.min_p > 0.0


def truncate(weights: torch.Tensor, requests: Sequence[CoreRequest]) -> torch.Tensor:
    """Set the weights to zero, in place, where a token must not be drawn; returns them.

    weights: (rows, vocabulary) float32, proportional to the probabilities, the largest of each row
    1. requests: one per row. Order, as in transformers: top-k, top-p of what it left, min-p.
    """
    floor = torch.tensor([r.min_p for r in requests], device=weights.device)[:, None]
    ranked = [i for i, r in enumerate(requests) if r.top_k > 0]
    others = [i for i, r in enumerate(requests) if r.top_k == 0 and r.top_p < 1.0]
    for rows, floor_of in ((ranked, _ranked_floor), (others, _mass_floor)):
        if rows:
            part = weights if len(rows) == len(requests) else weights[rows]
            found = floor_of(part, [requests[i] for i in rows])
            floor[rows] = torch.maximum(floor[rows], found)
    return weights.masked_fill_(weights < floor, 0.0)


def _ranked_floor(weights: torch.Tensor, requests: Sequence[CoreRequest]) -> torch.Tensor:
    """The smallest weight of each row (rows, 1) that top-k, and then top-p, leave."""
    ranks = [min(r.top_k, weights.shape[1]) for r in requests]
    values = _largest(weights, max(ranks))
    rank = torch.tensor(ranks, device=weights.device)[:, None]
    beyond = torch.arange(values.shape[1], device=weights.device) >= rank
    cumulative = values.double().masked_fill_(beyond, 0.0).cumsum(dim=-1)
    need = _shares(requests, weights.device) * cumulative[:, -1:]
    lighter = (cumulative < need).sum(dim=-1, keepdim=True)
    return values.gather(1, torch.minimum(lighter, rank - 1))


def _mass_floor(weights: torch.Tensor, requests: Sequence[CoreRequest]) -> torch.Tensor:
    """The smallest weight of each row (rows, 1) that top-p alone leaves."""
    need = _shares(requests, weights.device) * chunk_sums(weights).sum(dim=-1, keepdim=True)
    return _heaviest(weights, need)


def _shares(requests: Sequence[CoreRequest], device: torch.device) -> torch.Tensor:
    """(rows, 1) float64; without top-p more than all, so that rounding leaves nothing out."""
    shares = [r.top_p if r.top_p < 1.0 else 2.0 for r in requests]
    return torch.tensor(shares, dtype=torch.float64, device=device)[:, None]


def _largest(weights: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` largest values of each row, descending: (rows, count)."""
    if weights.device.type != "cpu":
        return torch.topk(weights, count, dim=-1).values
    # numpy's partition and sort of values alone are ten times as fast as torch's with indices.
    array = weights.numpy()
    if count < array.shape[1]:
        array = np.partition(array, array.shape[1] - count, axis=-1)[:, -count:]
    return torch.from_numpy(np.sort(array, axis=-1)[:, ::-1].copy())


def _heaviest(weights: torch.Tensor, need: torch.Tensor) -> torch.Tensor:
    """The largest value of each row (rows, 1) such that it and those above it weigh `need`, the
    smallest where all together don't.

    need: (rows, 1) float64.
    """
    if weights.device.type != "cpu":
        values = torch.sort(weights, dim=-1, descending=True).values
        lighter = (values.cumsum(dim=-1, dtype=torch.float64) < need).sum(dim=-1, keepdim=True)
        return values.gather(1, lighter.clamp_max(values.shape[1] - 1))
    array, above = _narrow(weights.numpy(), need.numpy())
    array = np.sort(array, axis=-1)[:, ::-1]
    lighter = (above + array.cumsum(axis=-1, dtype=np.float64) < need.numpy()).sum(axis=-1)
    index = np.minimum(lighter, array.shape[1] - 1)[:, None]
    return torch.from_numpy(np.take_along_axis(array, index, axis=-1))


def _narrow(
    array: NDArray[np.float32], need: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Weighted selection (Hoare's quickselect, by halves): at most SORTED values of each row, among
    which the mass of the largest passes `need`, and the mass (rows, 1) of those above them."""
    above = np.zeros_like(need)
    while array.shape[1] > SORTED:
        half = array.shape[1] // 2
        array = np.partition(array, array.shape[1] - half, axis=-1)
        upper = array[:, -half:]
        mass = above + upper.sum(axis=-1, keepdims=True, dtype=np.float64)
        reached = mass >= need
        # An odd row's middle value goes to the lower half, whose smallest would be one too many.
        lower = array[:, : array.shape[1] - half]
        above = np.where(reached, above, mass)
        if lower.shape[1] > half:
            upper = np.concatenate([lower.max(axis=-1, keepdims=True), upper], axis=-1)
        array = np.where(reached, upper, lower)
    return array, above
