"""A mixture of experts (Mixtral: Jiang et al., 2024): a router sends each token to a few MLPs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmi.dist.decoder.mlp import Mlp
from lmi.dist.kernels.base import Linear


class Mixture:
    """An `Mlp` whose rows go to their `chosen` likeliest experts, weighted by these."""

    __slots__ = ("_chosen", "_experts", "_router")

    def __init__(self, router: Linear, experts: Sequence[Mlp], chosen: int) -> None:
        self._router = router
        self._experts = experts
        self._chosen = chosen

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        shares = torch.softmax(self._router(rows).float(), dim=-1)
        weights, experts = torch.topk(shares, self._chosen, dim=-1)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(rows.dtype)
        out = torch.zeros_like(rows)
        # In the order of the experts, so that a row's sum does not depend on its neighbours.
        for index in torch.unique(experts).tolist():
            row, place = torch.where(experts == index)
            part = self._experts[index](rows[row].contiguous())
            out.index_add_(0, row, part * weights[row, place, None])
        return out
