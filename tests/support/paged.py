"""Ragged batches over a paged cache whose blocks lie in no order, on torch's default device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lmi.dist.kernels.base import Heads, Segments
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kernels.triton import TritonKernels
from lmi.dist.kv import LayerCache, LayerShape

# Of results near 1, relative to the widest: rounding of the inputs' dtype through one operation.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Case:
    """One step's attention: query (rows, heads * size), the cache, who owns which rows."""

    query: torch.Tensor
    cache: LayerCache
    segments: Segments
    heads: Heads

    def expected(self) -> torch.Tensor:
        """The plain kernels' answer in float32."""
        kernels = PlainKernels(torch.float32)
        return kernels.attention(self.query.float(), self.cache, self.segments, self.heads)


def heads_of(query: int, kv: int, size: int, window: int | None = None) -> Heads:
    """Heads that rotate fully, scaled as usual."""
    return Heads(query, kv, size, size, size**-0.5, window)


def make_cache(heads: Heads, blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
    """A cache full of random numbers, but NaN in the first and the last block: nobody owns them."""
    shape = LayerShape(heads.kv, heads.size, heads.size)
    cache = LayerCache(shape, blocks, block_size, dtype, torch.get_default_device())
    for tensor in (cache.keys, cache.values):
        tensor.copy_(torch.randn(tensor.shape))
        tensor[[0, -1]] = torch.nan
    return cache


def make_case(
    heads: Heads,
    spans: Sequence[tuple[int, int]],
    *,
    dtype: torch.dtype,
    block_size: int = 16,
    seed: int = 0,
) -> Case:
    """A case of sequences (rows, tokens): the trailing ones with one row are those that decode."""
    torch.manual_seed(seed)
    widths = [-(-tokens // block_size) for _, tokens in spans]
    blocks = sum(widths) + 2
    order = (torch.randperm(blocks - 2) + 1).split(widths)
    cache = make_cache(heads, blocks, block_size, dtype)
    # What a sequence has not written yet holds NaN, and so does the padding's block.
    tables = torch.full((len(spans), max(widths) + 1), blocks - 1, dtype=torch.int32)
    for index, (own, (_, tokens)) in enumerate(zip(order, spans, strict=True)):
        tables[index, : len(own)] = own
        if tokens % block_size:
            for tensor in (cache.keys, cache.values):
                tensor[own[-1], tokens % block_size :] = torch.nan
    first, packed = 0, []
    for rows, tokens in spans:
        packed.append((first, rows, tokens))
        first += rows
    decode_start = len(spans)
    while decode_start and spans[decode_start - 1][0] == 1:
        decode_start -= 1
    query = torch.randn(first, heads.query * heads.size).to(dtype)
    segments = Segments(
        spans=torch.tensor(packed, dtype=torch.int32),
        tables=tables,
        decode_start=decode_start,
        max_tokens=max(tokens for _, tokens in spans),
        longest=max(rows for rows, _ in spans),
    )
    return Case(query, cache, segments, heads)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """found is expected within the rounding of found's dtype."""
    assert found.shape == expected.shape
    difference = (found.float() - expected.float()).abs().max().item()
    widest = max(1.0, expected.float().abs().max().item())
    assert difference <= TOLERANCE[found.dtype] * widest, (difference, widest)


def triton_kernels(dtype: torch.dtype) -> TritonKernels:
    """Triton's kernels for torch's default device."""
    return TritonKernels(dtype, torch.get_default_device())
