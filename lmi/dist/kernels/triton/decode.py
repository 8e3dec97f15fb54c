"""Paged attention of sequences with one row or a few: V1, and V2 that splits a sequence's tokens.

One row is a decode, a few are speculated ones. Both versions cut a sequence at the same places
(every PARTITION tokens from its start), compute each part alike and join the parts in the same
order: they give the same bits, so which of them runs (and thus how many sequences stand in the
batch) is a matter of speed only.

V1 is one program per sequence and KV head, for the heads of the group in all rows. V2 gives a
sequence's parts to several programs, which leave their states in memory for a second kernel to
join. Sources: Kwon et al., PagedAttention (2023), and its V2; Dao et al., "Flash-Decoding for
long-context inference" (2023).
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from lmi.dist.kernels.base import Heads
from lmi.dist.kernels.triton.paging import (
    padded,
    score_tile,
    tile_tokens,
    token_offsets,
    value_tile,
)
from lmi.dist.kernels.triton.softmax import LOG2_E, add_tile, finish, join, start
from lmi.dist.kv import LayerCache

PARTITION: Final = 512  # tokens; a multiple of every tile
# A GPU hides the latency of memory with at least two programs per multiprocessor.
_PROGRAMS_PER_PROCESSOR: Final = 2
# Partitions that one program may work off one after the other, 4096 tokens: one long sequence among
# many short ones would otherwise keep the step waiting for a single program.
_LONGEST_SHARE: Final = 8
_FEW_ROWS: Final = 8  # of a sequence; more are a prefill, which has programs enough without V2
_MOST_QUERIES: Final = 64  # rows times heads of the group in one program, for the registers
_QUERY_BYTES: Final = 16 * 1024  # beside which two stages of tiles fit shared memory


def few_rows(heads: Heads) -> int:
    """Rows up to which a sequence is `decode_attention`'s, not `prefill_attention`'s."""
    return max(1, min(_FEW_ROWS, _MOST_QUERIES // triton.next_power_of_2(heads.query // heads.kv)))


def choose_splits(sequences: int, kv_heads: int, tokens: int, processors: int) -> int:
    """Programs that share one sequence and KV head; 1 is V1, more is V2.

    tokens: of the longest sequence (under a CUDA graph: the most that its table holds). V2 where
    V1's programs would leave multiprocessors idle, and where a sequence is so long that one program
    would be at work long after the others; never more programs than partitions.
    """
    partitions = -(-tokens // PARTITION)
    to_fill = -(-_PROGRAMS_PER_PROCESSOR * processors // (sequences * kv_heads))
    to_share = -(-partitions // _LONGEST_SHARE)
    return max(1, min(partitions, max(to_fill, to_share)))


def decode_attention(
    query: torch.Tensor,
    out: torch.Tensor,
    cache: LayerCache,
    spans: torch.Tensor,
    tables: torch.Tensor,
    heads: Heads,
    *,
    longest: int,
    max_tokens: int,
    splits: int,
    partition: int = PARTITION,
) -> None:
    """Attend the rows of each of `spans` (sequences, 3), with `tables` (sequences, width).

    query, out: (rows, query heads * size). Sequences with more than `longest` rows (at most
    `few_rows`) are left out; the others' rows are written. max_tokens: at least the largest token
    count of the spans. splits: see `choose_splits`. partition: tokens, a
    multiple of 64; other than the default only to test many of them with few tokens.
    """
    sequences = spans.shape[0]
    group = heads.query // heads.kv
    group_tile = triton.next_power_of_2(group)
    rows = triton.next_power_of_2(longest)
    queries = padded(rows * group_tile)
    size_tile = padded(heads.size)
    window = heads.window or 0
    scale = heads.scaling * LOG2_E
    geometry = {
        "KV": heads.kv,
        "GROUP": group,
        "SIZE": heads.size,
        "SIZE_TILE": size_tile,
        "WINDOW": window,
        "PART": partition,
        "ROWS": rows,
    }
    attend = {
        "GROUP_TILE": group_tile,
        "QUERIES": queries,
        "BLOCK": cache.keys.shape[1],
        "TILE": tile_tokens(heads.size, cache.keys.dtype),
        "num_warps": 4,
        "num_stages": 2 if queries * size_tile * query.element_size() <= _QUERY_BYTES else 1,
    }
    if splits == 1:
        _attend_whole[(sequences, heads.kv)](
            query, out, cache.keys, cache.values, spans, tables, tables.stride(0), scale,
            **geometry, **attend,
        )  # fmt: skip
        return
    partitions = -(-max_tokens // partition)
    states = (sequences, heads.query * rows, partitions)
    mixed = torch.empty((*states, heads.size), dtype=torch.float32, device=query.device)
    sums = torch.empty((*states, 2), dtype=torch.float32, device=query.device)
    _attend_parts[(sequences, heads.kv, splits)](
        query, mixed, sums, cache.keys, cache.values, spans, tables, tables.stride(0), scale,
        partitions, **geometry, **attend,
    )  # fmt: skip
    _join_parts[(sequences, heads.query * rows)](
        mixed, sums, out, spans, partitions, **geometry, num_warps=1
    )


@triton.jit
def _span(
    spans: tl.tensor, sequence: tl.tensor, ROWS: tl.constexpr, WINDOW: tl.constexpr
) -> tl.tensor:
    """(first row, rows, first token that one of them sees, tokens); no tokens and no rows where the
    sequence has more than ROWS."""
    base = tl.load(spans + sequence * 3)
    rows = tl.load(spans + sequence * 3 + 1)
    tokens = tl.load(spans + sequence * 3 + 2)
    mine = (rows <= ROWS).to(tl.int32)
    rows = rows * mine
    tokens = tokens * mine
    first = tokens * 0
    if WINDOW > 0:
        first = tl.maximum(tokens - rows + 1 - WINDOW, 0)
    return base, rows, first, tokens


@triton.jit
def _load_query(
    query: tl.tensor, base: tl.tensor, rows: tl.tensor, head: tl.tensor,
    KV: tl.constexpr, GROUP: tl.constexpr, GROUP_TILE: tl.constexpr, QUERIES: tl.constexpr,
    SIZE: tl.constexpr, SIZE_TILE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The queries (rows times group, size) that read one KV head; where they are, which exist."""
    row = tl.arange(0, QUERIES) // GROUP_TILE
    member = tl.arange(0, QUERIES) % GROUP_TILE
    number = tl.arange(0, SIZE_TILE)
    offsets = ((base + row).to(tl.int64) * KV + head) * (GROUP * SIZE) + member * SIZE
    offsets = offsets[:, None] + number[None, :]
    there = (row < rows) & (member < GROUP)
    inside = there[:, None] & (number < SIZE)[None, :]
    return tl.load(query + offsets, mask=inside, other=0.0), offsets, inside, there


@triton.jit
def _attend_part(
    queries: tl.tensor, keys: tl.tensor, values: tl.tensor, table: tl.tensor, part: tl.tensor,
    rows: tl.tensor, first: tl.tensor, tokens: tl.tensor, head: tl.tensor, scale: tl.tensor,
    KV: tl.constexpr, GROUP_TILE: tl.constexpr, QUERIES: tl.constexpr, SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, PART: tl.constexpr,
    WINDOW: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The softmax state over the visible tokens of one partition."""
    place = tokens - rows + tl.arange(0, QUERIES) // GROUP_TILE  # of a query in its sequence
    best, total, mixed = start(QUERIES, SIZE_TILE)
    low = tl.maximum(part * PART, first // TILE * TILE)
    high = tl.minimum((part + 1) * PART, tokens)
    for tile in range(low, high, TILE):
        position = tile + tl.arange(0, TILE)
        there = (position >= first) & (position < tokens)
        offsets = token_offsets(table, position, there, head, BLOCK, KV, SIZE)
        scores = score_tile(queries, keys, offsets, there, scale, QUERIES, TILE, SIZE, SIZE_TILE)
        seen = there[None, :] & (position[None, :] <= place[:, None])
        if WINDOW > 0:
            seen = seen & (position[None, :] > place[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        tile_values = value_tile(values, offsets, there, SIZE, SIZE_TILE)
        best, total, mixed = add_tile(scores, tile_values, best, total, mixed)
    return best, total, mixed


@triton.jit(do_not_specialize=["table_stride"])
def _attend_whole(
    query: tl.tensor, out: tl.tensor, keys: tl.tensor, values: tl.tensor, spans: tl.tensor,
    tables: tl.tensor, table_stride: tl.tensor, scale: tl.tensor,
    KV: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, SIZE_TILE: tl.constexpr,
    WINDOW: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, GROUP_TILE: tl.constexpr,
    QUERIES: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    base, rows, first, tokens = _span(spans, sequence, ROWS, WINDOW)
    queries, offsets, inside, _ = _load_query(
        query, base, rows, head, KV, GROUP, GROUP_TILE, QUERIES, SIZE, SIZE_TILE
    )
    table = tables + sequence.to(tl.int64) * table_stride
    best, total, mixed = start(QUERIES, SIZE_TILE)
    for part in range(first // PART, tl.cdiv(tokens, PART)):
        part_best, part_total, part_mixed = _attend_part(
            queries, keys, values, table, part, rows, first, tokens, head, scale,
            KV, GROUP_TILE, QUERIES, SIZE, SIZE_TILE, BLOCK, TILE, PART, WINDOW,
        )  # fmt: skip
        best, total, mixed = join(best, total, mixed, part_best, part_total, part_mixed)
    tl.store(out + offsets, finish(total, mixed).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["table_stride", "partitions"])
def _attend_parts(
    query: tl.tensor, mixed_out: tl.tensor, sums_out: tl.tensor, keys: tl.tensor, values: tl.tensor,
    spans: tl.tensor, tables: tl.tensor, table_stride: tl.tensor, scale: tl.tensor,
    partitions: tl.tensor,
    KV: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, SIZE_TILE: tl.constexpr,
    WINDOW: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, GROUP_TILE: tl.constexpr,
    QUERIES: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    base, rows, first, tokens = _span(spans, sequence, ROWS, WINDOW)
    queries, _, inside, there = _load_query(
        query, base, rows, head, KV, GROUP, GROUP_TILE, QUERIES, SIZE, SIZE_TILE
    )
    table = tables + sequence.to(tl.int64) * table_stride
    row = tl.arange(0, QUERIES) // GROUP_TILE
    member = tl.arange(0, QUERIES) % GROUP_TILE
    number = tl.arange(0, SIZE_TILE)
    state = ((sequence.to(tl.int64) * KV + head) * ROWS + row) * GROUP + member
    begin = first // PART + tl.program_id(2)
    for part in range(begin, tl.cdiv(tokens, PART), tl.num_programs(2)):
        best, total, mixed = _attend_part(
            queries, keys, values, table, part, rows, first, tokens, head, scale,
            KV, GROUP_TILE, QUERIES, SIZE, SIZE_TILE, BLOCK, TILE, PART, WINDOW,
        )  # fmt: skip
        place = state * partitions + part
        tl.store(mixed_out + place[:, None] * SIZE + number[None, :], mixed, mask=inside)
        tl.store(sums_out + place * 2, best, mask=there)
        tl.store(sums_out + place * 2 + 1, total, mask=there)


@triton.jit(do_not_specialize=["partitions"])
def _join_parts(
    mixed_in: tl.tensor, sums_in: tl.tensor, out: tl.tensor, spans: tl.tensor,
    partitions: tl.tensor,
    KV: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, SIZE_TILE: tl.constexpr,
    WINDOW: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    sequence = tl.program_id(0)
    index = tl.program_id(1)  # of (KV head, row, member of the group)
    head = index // (ROWS * GROUP)
    row = index // GROUP % ROWS
    base, rows, first, tokens = _span(spans, sequence, ROWS, WINDOW)
    if row >= rows:
        return
    one = tl.arange(0, 1)
    number = tl.arange(0, SIZE_TILE)[None, :]
    inside = number < SIZE
    best, total, mixed = start(1, SIZE_TILE)
    for part in range(first // PART, tl.cdiv(tokens, PART)):
        place = (sequence.to(tl.int64) * (KV * ROWS * GROUP) + index) * partitions + part
        part_best = tl.load(sums_in + place * 2 + one)
        part_total = tl.load(sums_in + place * 2 + 1 + one)
        part_mixed = tl.load(mixed_in + place * SIZE + number, mask=inside, other=0.0)
        best, total, mixed = join(best, total, mixed, part_best, part_total, part_mixed)
    query_head = head * GROUP + index % GROUP
    offsets = ((base + row).to(tl.int64) * (KV * GROUP) + query_head) * SIZE + number
    tl.store(out + offsets, finish(total, mixed).to(out.dtype.element_ty), mask=inside)
