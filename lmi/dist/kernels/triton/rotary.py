"""Per-head norm, rotation of query and key, and the cache's write, in one pass over a row's QKV.

Source: Su et al., RoFormer (2021), in halves as Llama rotates.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from lmi.dist.kernels.base import Heads
from lmi.dist.kv import LayerCache

_TILE_NUMBERS: Final = 2048  # of heads times numbers in one program: 16 per thread of four warps


def rotate_and_write(
    qkv: torch.Tensor,
    rope: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    cache: LayerCache,
    heads: Heads,
    query_norm: torch.Tensor | None,
    key_norm: torch.Tensor | None,
    epsilon: float,
) -> torch.Tensor:
    """See `lmi.dist.kernels.base.Kernels.rotate_and_write`."""
    rows = qkv.shape[0]
    query = qkv.new_empty((rows, heads.query * heads.size))
    size_tile = triton.next_power_of_2(heads.size)
    count = heads.query + 2 * heads.kv
    heads_tile = max(1, min(_TILE_NUMBERS // size_tile, triton.next_power_of_2(count)))
    nothing = qkv  # a pointer that is not read
    _rotate[(rows, triton.cdiv(count, heads_tile))](
        qkv, rope, positions, slots, query, cache.keys, cache.values,
        nothing if query_norm is None else query_norm,
        nothing if key_norm is None else key_norm, epsilon,
        QUERY=heads.query, KV=heads.kv, SIZE=heads.size, ROTARY=heads.rotary,
        SIZE_TILE=size_tile, HEADS_TILE=heads_tile,
        QUERY_NORM=query_norm is not None, KEY_NORM=key_norm is not None, num_warps=4,
    )  # fmt: skip
    return query


@triton.jit
def _normed(wide: tl.tensor, scale: tl.tensor, weight: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """A norm's output as the plain kernels round it, widened again."""
    rounded = (wide * scale).to(dtype).to(tl.float32)
    return (rounded * weight.to(dtype).to(tl.float32)).to(dtype).to(tl.float32)


@triton.jit
def _rotate(
    qkv: tl.tensor, rope: tl.tensor, positions: tl.tensor, slots: tl.tensor, query: tl.tensor,
    keys: tl.tensor, values: tl.tensor, query_norm: tl.tensor, key_norm: tl.tensor,
    epsilon: tl.tensor,
    QUERY: tl.constexpr, KV: tl.constexpr, SIZE: tl.constexpr, ROTARY: tl.constexpr,
    SIZE_TILE: tl.constexpr, HEADS_TILE: tl.constexpr, QUERY_NORM: tl.constexpr,
    KEY_NORM: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    head = (tl.program_id(1) * HEADS_TILE + tl.arange(0, HEADS_TILE))[:, None]
    number = tl.arange(0, SIZE_TILE)[None, :]
    is_query = head < QUERY
    is_key = (head >= QUERY) & (head < QUERY + KV)
    is_value = (head >= QUERY + KV) & (head < QUERY + 2 * KV)
    inside = (head < QUERY + 2 * KV) & (number < SIZE)
    # The number that this one turns with: the same angle's in the other half.
    HALF: tl.constexpr = ROTARY // 2
    in_low = number < HALF
    partner = tl.where(in_low, number + HALF, number - HALF)
    turns = (number < ROTARY) & ~is_value
    source = qkv + row.to(tl.int64) * ((QUERY + 2 * KV) * SIZE) + head * SIZE
    raw = tl.load(source + number, mask=inside, other=0.0)
    dtype: tl.constexpr = raw.dtype
    own = raw.to(tl.float32)
    other = tl.load(source + partner, mask=inside & turns, other=0.0).to(tl.float32)
    if QUERY_NORM or KEY_NORM:
        scale = tl.rsqrt(tl.sum(own * own, axis=1) / SIZE + epsilon)[:, None]
        if QUERY_NORM:
            mine = inside & is_query
            weight = tl.load(query_norm + number, mask=number < SIZE, other=0.0)
            mate = tl.load(query_norm + partner, mask=number < ROTARY, other=0.0)
            own = tl.where(mine, _normed(own, scale, weight, dtype), own)
            other = tl.where(mine, _normed(other, scale, mate, dtype), other)
        if KEY_NORM:
            mine = inside & is_key
            weight = tl.load(key_norm + number, mask=number < SIZE, other=0.0)
            mate = tl.load(key_norm + partner, mask=number < ROTARY, other=0.0)
            own = tl.where(mine, _normed(own, scale, weight, dtype), own)
            other = tl.where(mine, _normed(other, scale, mate, dtype), other)
    angles = rope + tl.load(positions + row) * ROTARY + tl.where(in_low, number, number - HALF)
    cosine = tl.load(angles, mask=number < ROTARY, other=1.0)
    sine = tl.load(angles + HALF, mask=number < ROTARY, other=0.0)
    turned = own * cosine + tl.where(in_low, -other, other) * sine
    found = tl.where(turns, turned, own)
    at = query + (row.to(tl.int64) * QUERY + head) * SIZE + number
    tl.store(at, found.to(dtype), mask=inside & is_query)
    slot = tl.load(slots + row)
    key_at = keys + (slot * KV + head - QUERY) * SIZE + number
    tl.store(key_at, found.to(keys.dtype.element_ty), mask=inside & is_key)
    value_at = values + (slot * KV + head - QUERY - KV) * SIZE + number
    tl.store(value_at, raw.to(values.dtype.element_ty), mask=inside & is_value)
