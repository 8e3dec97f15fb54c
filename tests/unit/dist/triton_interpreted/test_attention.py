"""Paged attention, V1, V2 and prefill, against plain torch."""

from __future__ import annotations

import pytest
import torch

from lmi.dist.kernels.base import Heads, Segments
from lmi.dist.kernels.triton.decode import choose_splits, decode_attention
from tests.support.paged import Case, assert_close, heads_of, make_case, triton_kernels

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# (query heads, KV heads, size, window, block size): groups of 1, 3, 4 and 8; sizes that fill
# their tile and that don't; windows below and above a tile, a block and a partition.
LAYERS = [
    (2, 2, 64, None, 16),
    (6, 2, 80, None, 32),
    (4, 1, 96, 24, 16),
    (8, 1, 128, 100, 32),
    (8, 2, 64, 1, 16),
]
# All layers in float32, some in the narrow dtypes: the interpreter takes its time.
CASES = [
    *((torch.float32, layer) for layer in LAYERS),
    *((dtype, layer) for dtype in DTYPES[1:] for layer in LAYERS[1:3]),
]
PART = 64  # tokens in a partition here, for many partitions with few tokens
RAGGED = [1, 63, 64, 200]


def decode(case: Case, splits: int, longest: int = 1) -> torch.Tensor:
    out = torch.full_like(case.query, torch.nan)
    segments = case.segments
    decode_attention(
        case.query, out, case.cache, segments.spans, segments.tables, case.heads,
        longest=longest, max_tokens=segments.max_tokens, splits=splits, partition=PART,
    )  # fmt: skip
    return out


@pytest.mark.parametrize(("dtype", "layer"), CASES)
def test_decode_attention_is_the_plain_one_and_v1_gives_the_bits_of_v2(
    dtype: torch.dtype, layer: tuple[int, int, int, int | None, int]
) -> None:
    *sizes, window, block_size = layer
    heads = heads_of(*sizes, window)
    spans = [(1, tokens) for tokens in RAGGED]
    case = make_case(heads, spans, dtype=dtype, block_size=block_size)
    whole = decode(case, splits=1)
    assert_close(whole, case.expected())
    assert torch.equal(whole, decode(case, splits=3))


@pytest.mark.parametrize(("dtype", "layer"), [*CASES[2:4], CASES[-1]])
def test_a_few_rows_are_split_like_one_and_many_are_left_out(
    dtype: torch.dtype, layer: tuple[int, int, int, int | None, int]
) -> None:
    *sizes, window, block_size = layer
    heads = heads_of(*sizes, window)
    spans = [(9, 20), (3, 66), (8, 8), (5, 140)]
    case = make_case(heads, spans, dtype=dtype, block_size=block_size)
    whole = decode(case, splits=1, longest=8)
    assert whole[:9].isnan().all()
    assert_close(whole[9:], case.expected()[9:])
    assert torch.equal(whole[9:], decode(case, splits=2, longest=8)[9:])


@pytest.mark.parametrize(("dtype", "layer"), CASES)
def test_prefill_chunks_speculated_and_decode_rows_in_one_batch_are_the_plain_ones(
    dtype: torch.dtype, layer: tuple[int, int, int, int | None, int]
) -> None:
    *sizes, window, block_size = layer
    heads = heads_of(*sizes, window)
    spans = [(20, 20), (33, 90), (1, 1), (4, 70), (1, 70), (1, 16)]
    case = make_case(heads, spans, dtype=dtype, block_size=block_size)
    found = triton_kernels(dtype).attention(case.query, case.cache, case.segments, heads)
    assert_close(found, case.expected())


@pytest.mark.parametrize("window", [None, 40])
def test_a_rows_bits_do_not_depend_on_how_its_prompt_was_cut(window: int | None) -> None:
    heads = heads_of(4, 2, 64, window)
    case = make_case(heads, [(100, 100)], dtype=torch.bfloat16)
    kernels = triton_kernels(torch.bfloat16)
    whole = kernels.attention(case.query, case.cache, case.segments, heads)
    parts = []
    for start, stop in ((0, 9), (9, 64), (64, 100)):
        segments = Segments(
            torch.tensor([[0, stop - start, stop]], dtype=torch.int32),
            case.segments.tables,
            decode_start=1,
            max_tokens=stop,
            longest=stop - start,
        )
        parts.append(kernels.attention(case.query[start:stop], case.cache, segments, heads))
    assert torch.equal(torch.cat(parts), whole)


def test_a_decoding_rows_bits_do_not_depend_on_its_batch() -> None:
    heads = heads_of(8, 2, 64)
    lengths = [30, 530]
    crowd = make_case(heads, [(1, tokens) for tokens in lengths], dtype=torch.float16)
    kernels = triton_kernels(torch.float16)
    together = kernels.attention(crowd.query, crowd.cache, crowd.segments, heads)
    for row, tokens in enumerate(lengths):
        segments = Segments(
            torch.tensor([[0, 1, tokens]], dtype=torch.int32),
            crowd.segments.tables[row : row + 1],
            decode_start=0,
            max_tokens=tokens,
            longest=1,
        )
        query = crowd.query[row : row + 1]
        alone = kernels.attention(query, crowd.cache, segments, heads)
        assert torch.equal(alone, together[row : row + 1])


@pytest.mark.parametrize("splits", [1, 4])
def test_a_sequence_without_tokens_gets_zeros(splits: int) -> None:
    heads: Heads = heads_of(4, 2, 64)
    case = make_case(heads, [(1, 40), (1, 100)], dtype=torch.float32)
    case.segments.spans[0, 2] = 0
    found = decode(case, splits)
    assert found[0].eq(0).all()
    assert found[1].isfinite().all()


@pytest.mark.parametrize(
    ("sequences", "tokens", "splits"),
    [
        (1, 512, 1),  # one partition: nothing to split
        (1, 513, 2),
        (1, 8192, 16),  # 2 * 100 programs wanted, 8 heads: as many as there are partitions
        (4, 8192, 7),
        (32, 4096, 1),  # the sequences alone fill the GPU
        (32, 4097, 2),  # but one program works off eight partitions at most
        (256, 131_072, 32),
    ],
)
def test_a_sequence_is_split_where_programs_lack_or_one_would_work_too_long(
    sequences: int, tokens: int, splits: int
) -> None:
    assert choose_splits(sequences, 8, tokens, processors=100) == splits
