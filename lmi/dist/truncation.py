"""Which tokens top-k, top-p and min-p leave, as one threshold per row: those at least as likely.

So equally likely tokens stay or go together, and nothing depends on how a sort orders them. Only
values are sorted, never ids, and only as many as can matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lmi.dist.messages import CoreRequest


def is_truncated(request: CoreRequest) -> bool:
    """Whether some tokens can't be drawn."""
    return request.top_k > 0 or request.top_p < 1.0 or request.min_p > 0.0


def truncate(weights: torch.Tensor, requests: Sequence[CoreRequest]) -> torch.Tensor:
    """The weights with zeros where a token must not be drawn.

    weights: (rows, vocabulary) float32, proportional to the probabilities, the largest of each row
    1. requests: one per row. Order, as in transformers: top-k, top-p of what it left, min-p.
    """
    floor = torch.tensor([r.min_p for r in requests], device=weights.device)
    sorting = [i for i, r in enumerate(requests) if r.top_k > 0 or r.top_p < 1.0]
    if sorting:
        part = weights if len(sorting) == len(requests) else weights[sorting]
        found = _floor(part, [requests[i] for i in sorting])
        floor[sorting] = torch.maximum(floor[sorting], found)
    return torch.where(weights >= floor[:, None], weights, 0.0)


def _floor(weights: torch.Tensor, requests: Sequence[CoreRequest]) -> torch.Tensor:
    """The smallest weight of each row (rows) that top-k and top-p leave."""
    vocabulary, device = weights.shape[1], weights.device
    top_k = torch.tensor([min(r.top_k, vocabulary) for r in requests], device=device)
    top_p = torch.tensor([r.top_p for r in requests], dtype=torch.float64, device=device)
    mass = weights.sum(dim=-1, dtype=torch.float64)
    # All tokens below this share come to less than 1 - top_p: at least top_p lies above it.
    negligible = ((1.0 - top_p) * mass / vocabulary).float()
    reach = (weights >= negligible[:, None]).sum(dim=-1)
    values = _largest(weights, int(torch.where(top_k > 0, top_k, reach).max()))
    kth = values.gather(1, (top_k - 1).clamp_min(0)[:, None])
    floor = torch.where(top_k[:, None] > 0, kth, 0.0)
    if bool(((top_k > 0) & (top_p < 1.0)).any()):
        mass = torch.where(weights >= floor, weights, 0.0).sum(dim=-1, dtype=torch.float64)
    values = torch.where(values >= floor, values, 0.0).double()
    # A token stays while the mass of those before it is below top_p: the first always does.
    before = values.cumsum(dim=-1) - values
    stay = ((before < (top_p * mass)[:, None]) & (values > 0.0)).sum(dim=-1, keepdim=True)
    return torch.maximum(floor, values.gather(1, stay - 1).float())[:, 0]


def _largest(weights: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` largest values of each row, descending: (rows, count)."""
    if weights.device.type != "cpu":
        return torch.topk(weights, count, dim=-1).values
    # numpy's vectorised partition and sort of values take a tenth of torch's sort with indices.
    array = weights.numpy()
    if count < array.shape[1]:
        array = np.partition(array, array.shape[1] - count, axis=-1)[:, -count:]
    return torch.from_numpy(np.sort(array, axis=-1)[:, ::-1].copy())
