"""Reading the paged cache: from token positions to tiles of keys and values."""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from lmi.dist.kernels.triton.product import add_product

# Bytes of a tile of keys (and of one of values). Two of each in flight and the queries' tile fit
# the 99 KiB of shared memory that the smallest supported GPUs give a program.
_TILE_BYTES: Final = 16 * 1024
_MOST_TOKENS: Final = 64
_LEAST: Final = 16  # what a tensor core's product takes at least in each dimension


def padded(count: int) -> int:
    """The tile's width for `count` heads or numbers: a power of two that a product can take."""
    return max(_LEAST, triton.next_power_of_2(count))


def tile_tokens(size: int, dtype: torch.dtype) -> int:
    """Tokens in a tile for heads of `size` numbers: a power of two, 16 to 64."""
    fitting = _TILE_BYTES // (padded(size) * dtype.itemsize)
    return max(_LEAST, min(_MOST_TOKENS, fitting))


@triton.jit
def token_offsets(
    table: tl.tensor, tokens: tl.tensor, there: tl.tensor, head: tl.tensor,
    BLOCK: tl.constexpr, KV: tl.constexpr, SIZE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Where a head of each token starts in the cache, in numbers; 64 bits, since a cache may hold
    more than 2**31. tokens: positions; there: which of them exist."""
    block = tl.load(table + tokens // BLOCK, mask=there, other=0).to(tl.int64)
    return ((block * BLOCK + tokens % BLOCK) * KV + head) * SIZE


@triton.jit
def score_tile(
    query: tl.tensor, keys: tl.tensor, offsets: tl.tensor, there: tl.tensor, scale: tl.tensor,
    QUERIES: tl.constexpr, TILE: tl.constexpr, SIZE: tl.constexpr, SIZE_TILE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Scores (queries, tokens) of a tile of tokens: scale * query . key."""
    numbers = tl.arange(0, SIZE_TILE)
    inside = (numbers < SIZE)[:, None] & there[None, :]
    tile = tl.load(keys + offsets[None, :] + numbers[:, None], mask=inside, other=0.0)
    nothing = tl.zeros((QUERIES, TILE), tl.float32)
    return add_product(query, tile.to(query.dtype), nothing) * scale


@triton.jit
def value_tile(
    values: tl.tensor,
    offsets: tl.tensor,
    there: tl.tensor,
    SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr,
) -> tl.tensor:
    """Values (tokens, size) of a tile of tokens; 0 where there is none, so that what lies in a
    block beyond a sequence's end never enters a product."""
    numbers = tl.arange(0, SIZE_TILE)
    inside = there[:, None] & (numbers < SIZE)[None, :]
    return tl.load(values + offsets[:, None] + numbers[None, :], mask=inside, other=0.0)
