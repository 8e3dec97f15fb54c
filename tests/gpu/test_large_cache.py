"""A KV cache of more numbers than 32 bits count, as GPUs of today hold."""

from __future__ import annotations

import pytest
import torch

from lmi.dist.kernels.base import Segments
from lmi.dist.kv import LayerCache, LayerShape
from tests.support.paged import heads_of, triton_kernels

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device here", allow_module_level=True)

BLOCK, SIZE = 16, 64
TOKENS = 40
BLOCKS = 2**31 // (BLOCK * SIZE) + 8
WANTED = 10 << 30  # bytes: keys and values in float16, and some room


@pytest.mark.parametrize("rows", [1, 20])
def test_blocks_beyond_two_billion_numbers_are_written_and_read(rows: int) -> None:
    if torch.cuda.mem_get_info()[0] < WANTED:
        pytest.skip("the device has less than 10 GiB free")
    heads = heads_of(1, 1, SIZE)
    shape = LayerShape(1, SIZE, SIZE)
    found = []
    with torch.device("cuda"):
        kernels = triton_kernels(torch.float16)
        for last in (4, BLOCKS - 1):
            torch.manual_seed(0)
            cache = LayerCache(shape, last + 1, BLOCK, torch.float16, torch.device("cuda"))
            table = torch.arange(last, last - 3, -1, dtype=torch.int32)
            positions = torch.arange(TOKENS)
            slots = table.long()[positions // BLOCK] * BLOCK + positions % BLOCK
            qkv, rope = torch.randn(TOKENS, 3 * SIZE).half(), torch.randn(TOKENS, SIZE)
            query = kernels.rotate_and_write(
                qkv, rope, positions, slots, cache, heads, None, None, 1e-6
            )
            spans = torch.tensor([[0, rows, TOKENS]], dtype=torch.int32)
            segments = Segments(spans, table[None], int(rows > 1), TOKENS, rows)
            found.append(kernels.attention(query[-rows:].contiguous(), cache, segments, heads))
            del cache
    assert torch.equal(*found)
