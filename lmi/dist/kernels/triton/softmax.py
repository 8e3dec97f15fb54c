"""The streaming softmax that the attention kernels share.

A state is (best, total, mixed): the largest score so far, the sum of 2**(score - best), and the sum
of the values with those weights; all float32, one entry (one row of `mixed`) per query. Scores are
in units of log 2, because a GPU has an instruction for 2**x and none for e**x. Source: Milakov and
Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al., FlashAttention (2022).
"""

from __future__ import annotations

import math
from typing import Final

import triton
import triton.language as tl

from lmi.dist.kernels.triton.product import add_product

LOG2_E: Final = math.log2(math.e)  # multiplied into the scaling of scores on the host


@triton.jit
def start(QUERIES: tl.constexpr, SIZE: tl.constexpr) -> tl.tensor:
    """The state before any token."""
    best = tl.full((QUERIES,), float("-inf"), tl.float32)
    return best, tl.zeros((QUERIES,), tl.float32), tl.zeros((QUERIES, SIZE), tl.float32)


@triton.jit
def _anchor(best: tl.tensor) -> tl.tensor:
    """`best`, but 0 for a query that has seen nothing: -inf - -inf would be NaN."""
    return tl.where(best == float("-inf"), 0.0, best)


@triton.jit
def add_tile(
    scores: tl.tensor, values: tl.tensor, best: tl.tensor, total: tl.tensor, mixed: tl.tensor
) -> tl.tensor:
    """The state with a tile of tokens: scores (queries, tokens), -inf where hidden; values (tokens,
    size). A tile that is hidden from a query leaves that query's state as it was, bit for bit."""
    higher = tl.maximum(best, tl.max(scores, axis=1))
    anchor = _anchor(higher)
    weights = tl.exp2(scores - anchor[:, None])
    keep = tl.exp2(best - anchor)
    total = total * keep + tl.sum(weights, axis=1)
    mixed = add_product(weights.to(values.dtype), values, mixed * keep[:, None])
    return higher, total, mixed


@triton.jit
def join(
    best: tl.tensor,
    total: tl.tensor,
    mixed: tl.tensor,
    best2: tl.tensor,
    total2: tl.tensor,
    mixed2: tl.tensor,
) -> tl.tensor:
    """The state of both parts together. The fused multiply-adds are spelled out, so that every
    kernel that joins the same parts in the same order gets the same bits."""
    higher = tl.maximum(best, best2)
    anchor = _anchor(higher)
    keep = tl.exp2(best - anchor)
    keep2 = tl.exp2(best2 - anchor)
    total = tl.fma(total, keep, total2 * keep2)
    mixed = tl.fma(
        mixed,
        tl.broadcast_to(keep[:, None], mixed.shape),
        mixed2 * keep2[:, None],
    )
    return higher, total, mixed


@triton.jit
def finish(total: tl.tensor, mixed: tl.tensor) -> tl.tensor:
    """The attention's output; 0 for a query that saw no token."""
    return mixed / tl.where(total == 0.0, 1.0, total)[:, None]
