"""Where a cumulative sum passes a target: by chunks, without the sums of every single number.

A cumulative sum over a vocabulary is slow, since each number waits for the one before it. So chunks
are summed first, and only the chunk that is hit is looked into.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.nn.functional import pad

CHUNK: Final = 128  # numbers summed at once; most vocabularies are a multiple of it


def invert(weights: torch.Tensor, uniform: list[float]) -> torch.Tensor:
    """The ids (rows) int64 at which the cumulative weights pass a share `uniform` of their sum.

    weights: (rows, vocabulary) float32, at least 0, and one above it in each row. An id whose
    weight is 0 is never given. uniform: one number from 0 to below 1 per row.
    """
    chunks = _chunks(weights)
    cumulative = chunk_sums(weights).cumsum(dim=-1)
    share = torch.tensor(uniform, dtype=torch.float64, device=weights.device)[:, None]
    target = share * cumulative[:, -1:]
    chunk = _passed(cumulative, target)
    before = torch.where(chunk > 0, cumulative.gather(1, (chunk - 1).clamp_min(0)), 0.0)
    rows = torch.arange(weights.shape[0], device=weights.device)
    inside = _passed(chunks[rows, chunk[:, 0]].double().cumsum(dim=-1), target - before)
    return (chunk * CHUNK + inside)[:, 0]


def chunk_sums(weights: torch.Tensor) -> torch.Tensor:
    """(rows, vocabulary) float32 -> (rows, chunks) float64, each chunk summed in float32."""
    return _chunks(weights).sum(dim=-1).double()


def _chunks(weights: torch.Tensor) -> torch.Tensor:
    """(rows, chunks, CHUNK), the last filled up with zeros."""
    lacking = -weights.shape[1] % CHUNK
    whole = pad(weights, (0, lacking)) if lacking else weights
    return whole.view(weights.shape[0], -1, CHUNK)


def _passed(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The first index (rows, 1) whose cumulative sum is above the target; the last that adds
    anything where rounding lets none be."""
    # right=True: what adds 0 can't be hit, not even by a target of exactly 0.
    index = torch.searchsorted(cumulative, target, right=True)
    last = (cumulative < cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    return torch.minimum(index, last)
