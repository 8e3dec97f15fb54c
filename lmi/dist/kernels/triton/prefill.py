"""Paged attention of sequences with many rows each: chunks of prompts.

One program computes a tile of rows for all query heads of one KV head, so that a key is read once
for the whole group. Tiles of keys begin at multiples of the tile from the sequence's start, and a
tile that is hidden from a row leaves that row's numbers as they are: a row's result does not depend
on how its prompt was cut into chunks. Source: Dao, FlashAttention-2 (2023).
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from lmi.dist.kernels.base import Heads
from lmi.dist.kernels.triton.decode import few_rows
from lmi.dist.kernels.triton.paging import (
    padded,
    score_tile,
    tile_tokens,
    token_offsets,
    value_tile,
)
from lmi.dist.kernels.triton.softmax import LOG2_E, add_tile, finish, start
from lmi.dist.kv import LayerCache

# Bytes of queries (rows times heads of the group) in one program, beside the tiles of keys and
# values; and the most queries, for the registers.
_QUERY_BYTES: Final = 16 * 1024
_MOST_QUERIES: Final = 64


def prefill_attention(
    query: torch.Tensor,
    out: torch.Tensor,
    cache: LayerCache,
    spans: torch.Tensor,
    tables: torch.Tensor,
    heads: Heads,
    *,
    longest: int,
    max_tokens: int,
) -> None:
    """Attend all rows of each of `spans` (sequences, 3), with `tables` (sequences, width).

    query, out: (rows, query heads * size). Sequences of at most `few_rows` rows are left out; the
    others' rows are written. longest: at least
    the largest number of rows of one sequence. max_tokens: at least the largest token count.
    """
    del max_tokens  # a program reads its own sequence's; torch's attention asks for it
    group = heads.query // heads.kv
    group_tile = triton.next_power_of_2(group)
    size_tile = padded(heads.size)
    queries = min(_MOST_QUERIES, _QUERY_BYTES // (size_tile * query.element_size()))
    rows = max(1, queries // group_tile)
    # Tiles of rows stand first in the grid: only its first dimension may exceed 65,535.
    grid = (triton.cdiv(longest, rows), heads.kv, spans.shape[0])
    _attend_rows[grid](
        query, out, cache.keys, cache.values, spans, tables, tables.stride(0),
        heads.scaling * LOG2_E,
        KV=heads.kv, GROUP=group, GROUP_TILE=group_tile, QUERIES=max(16, rows * group_tile),
        SIZE=heads.size, SIZE_TILE=size_tile, WINDOW=heads.window or 0,
        BLOCK=cache.keys.shape[1], TILE=tile_tokens(heads.size, cache.keys.dtype), ROWS=rows,
        FEW=few_rows(heads),
        num_warps=4, num_stages=2,
    )  # fmt: skip


@triton.jit(do_not_specialize=["table_stride"])
def _attend_rows(
    query: tl.tensor, out: tl.tensor, keys: tl.tensor, values: tl.tensor, spans: tl.tensor,
    tables: tl.tensor, table_stride: tl.tensor, scale: tl.tensor,
    KV: tl.constexpr, GROUP: tl.constexpr, GROUP_TILE: tl.constexpr, QUERIES: tl.constexpr,
    SIZE: tl.constexpr, SIZE_TILE: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr, ROWS: tl.constexpr, FEW: tl.constexpr,
) -> None:  # fmt: skip
    sequence = tl.program_id(2)
    head = tl.program_id(1)
    base = tl.load(spans + sequence * 3)
    rows = tl.load(spans + sequence * 3 + 1)
    tokens = tl.load(spans + sequence * 3 + 2)
    first_row = tl.program_id(0) * ROWS
    if (first_row >= rows) | (rows <= FEW):
        return
    member = tl.arange(0, QUERIES) % GROUP_TILE
    row = first_row + tl.arange(0, QUERIES) // GROUP_TILE
    number = tl.arange(0, SIZE_TILE)
    offsets = ((base + row).to(tl.int64) * KV + head) * (GROUP * SIZE) + member * SIZE
    offsets = offsets[:, None] + number[None, :]
    last_row = tl.minimum(first_row + ROWS, rows) - 1
    inside = ((row <= last_row) & (member < GROUP))[:, None] & (number < SIZE)[None, :]
    queries = tl.load(query + offsets, mask=inside, other=0.0)
    table = tables + sequence.to(tl.int64) * table_stride
    place = tokens - rows + row  # of each query in its sequence
    low = tokens * 0
    if WINDOW > 0:
        low = tl.maximum(tokens - rows + first_row - WINDOW + 1, 0) // TILE * TILE
    high = tokens - rows + last_row + 1
    best, total, mixed = start(QUERIES, SIZE_TILE)
    for tile in range(low, high, TILE):
        position = tile + tl.arange(0, TILE)
        there = position < high
        token = token_offsets(table, position, there, head, BLOCK, KV, SIZE)
        scores = score_tile(queries, keys, token, there, scale, QUERIES, TILE, SIZE, SIZE_TILE)
        seen = position[None, :] <= place[:, None]
        if WINDOW > 0:
            seen = seen & (position[None, :] > place[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        tile_values = value_tile(values, token, there, SIZE, SIZE_TILE)
        best, total, mixed = add_tile(scores, tile_values, best, total, mixed)
    tl.store(out + offsets, finish(total, mixed).to(out.dtype.element_ty), mask=inside)
