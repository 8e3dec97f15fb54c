"""The C++ kernels against torch's operators, and bit for bit against themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lmi.dist.kernels.base import Heads, Segments
from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kv import LayerCache, LayerShape
from lmi.dist.native.library import LibraryMissing, load_library, set_threads

try:
    load_library()
except LibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

FORMATS = (torch.float32, torch.bfloat16, torch.float16)
PLAIN = PlainKernels(torch.float32)


@pytest.fixture
def kernels() -> CpuKernels:
    return CpuKernels()


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    set_threads(2)
    yield
    set_threads(1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    scale = float(wanted.abs().max())
    assert float((found - wanted).abs().max()) <= tolerance * max(scale, 1.0)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 48, 130, 1000])
@pytest.mark.parametrize("inputs", [1, 7, 64, 255, 256, 257, 700])
def test_a_linear_layer_is_the_product_in_float32(
    kernels: CpuKernels, dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    weight = normal(outputs, inputs).to(dtype)
    bias = normal(outputs, seed=1).to(dtype) if outputs % 2 else None
    layer = kernels.linear(weight, bias)
    assert (layer.in_features, layer.out_features) == (inputs, outputs)
    for rows in (1, 2, 3, 4, 5, 6, 7, 13, 130):
        x = normal(rows, inputs, seed=2)
        wanted = x @ weight.float().T + (0 if bias is None else bias.float())
        same(layer(x), wanted)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_row_of_a_linear_layer_is_the_same_bits_in_any_company(
    kernels: CpuKernels, dtype: torch.dtype
) -> None:
    for outputs, inputs in ((77, 300), (512, 1025)):
        layer = kernels.linear(normal(outputs, inputs).to(dtype), normal(outputs, seed=1))
        x = normal(700, inputs, seed=2)
        alone = torch.cat([layer(x[i : i + 1]).clone() for i in range(len(x))])
        for threads in (1, 2, 3):
            set_threads(threads)
            for rows in (*range(1, 26), 119, 120, 121, 500, 700):
                assert torch.equal(layer(x[:rows]), alone[:rows]), (threads, rows)


def test_a_linear_layer_passes_nan_and_infinity_on(kernels: CpuKernels) -> None:
    weight = normal(40, 33)
    layer = kernels.linear(weight, None)
    for rows in (1, 9):
        x = normal(rows, 33)
        x[rows - 1, 32] = math.nan
        found = layer(x)
        assert found[rows - 1].isnan().all()
        assert found[: rows - 1].isfinite().all()
        x[rows - 1, 32] = math.inf
        assert torch.equal(layer(x)[rows - 1], (weight[:, 32] * math.inf))


def test_no_rows_give_no_results(kernels: CpuKernels) -> None:
    empty, weight = torch.empty(0, 32), torch.ones(32)
    assert kernels.linear(normal(16, 32), None)(empty).shape == (0, 16)
    assert kernels.embed(normal(5, 32), torch.empty(0, dtype=torch.int64)).shape == (0, 32)
    assert kernels.rms_norm(empty, weight, 1e-5).shape == (0, 32)
    assert kernels.add_rms_norm(empty, empty, weight, 1e-5).shape == (0, 32)
    assert kernels.silu_mul(empty).shape == (0, 16)
    assert kernels.argmax(empty).tolist() == kernels.draw(empty, [], []).tolist() == []


def test_results_outlive_two_more_calls_of_the_same_operation(kernels: CpuKernels) -> None:
    layer = kernels.linear(torch.eye(16), None)
    kept = [layer(torch.full((4, 16), float(i))) for i in range(3)]
    assert [float(x[0, 0]) for x in kept] == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 8, 31, 64, 768, 1000])
def test_norms_embedding_and_gate_agree_with_torch(kernels: CpuKernels, size: int) -> None:
    for rows, dtype in itertools.product((1, 3, 200), FORMATS):
        x, weight = normal(rows, size), normal(size, seed=1).to(dtype)
        same(kernels.rms_norm(x, weight, 1e-5), PLAIN.rms_norm(x, weight.float(), 1e-5))
        residual, delta = normal(rows, size, seed=2), normal(rows, size, seed=3)
        wanted = residual + delta
        found = kernels.add_rms_norm(residual, delta, weight, 1e-6)
        assert torch.equal(residual, wanted)
        same(found, PLAIN.rms_norm(wanted, weight.float(), 1e-6))
        table = normal(50, size, seed=4).to(dtype)
        ids = torch.arange(rows) % 50
        assert torch.equal(kernels.embed(table, ids), table.float()[ids])
        gate_up = 20 * normal(rows, 2 * size, seed=5)
        same(kernels.silu_mul(gate_up), PLAIN.silu_mul(gate_up), 1e-6)


def test_the_exponential_is_within_two_units_in_the_last_place(kernels: CpuKernels) -> None:
    x = torch.linspace(-120, 100, 200_001)
    gate_up = torch.cat([x, torch.ones_like(x)])[None]
    found = kernels.silu_mul(gate_up)[0].double()
    wanted = x.double() / (1 + torch.exp(-x.double()))
    # Below -87.3 the logistic function's reciprocal is subnormal and has few bits.
    normal_range = x > -86
    error = ((found - wanted).abs() / wanted.abs().clamp_min(1e-45))[normal_range]
    assert float(error[x[normal_range] != 0].max()) < 4 * 2**-23
    special = torch.tensor([[math.nan, math.inf, -math.inf, -1e30, 1e30, 0.0, 1, 1, 1, 1, 1, 1]])
    got = kernels.silu_mul(special)[0]
    assert got[0].isnan()
    assert torch.equal(got[[1, 3, 4, 5]], torch.tensor([math.inf, -0.0, 1e30, 0.0]))
    assert got[2].isnan()  # as torch: -inf * 0


def make_cache(dtype: torch.dtype, blocks: int, block_size: int, kv: int, size: int) -> LayerCache:
    return LayerCache(LayerShape(kv, size, size), blocks, block_size, dtype, torch.device("cpu"))


def rope_of(positions: int, rotary: int) -> torch.Tensor:
    angles = torch.outer(torch.arange(positions).float(), 0.5 ** torch.arange(rotary // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1).contiguous()


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("normed", [False, True])
def test_keys_are_rotated_and_written_as_torch_would(
    kernels: CpuKernels, dtype: torch.dtype, normed: bool
) -> None:
    for query, kv, size, rotary, rows in (
        (4, 2, 64, 64, 5),
        (3, 3, 20, 12, 1),
        (8, 1, 128, 128, 9),
    ):
        heads = Heads(query, kv, size, rotary, 1.0)
        qkv = normal(rows, (query + 2 * kv) * size)
        generator = torch.Generator().manual_seed(rows)
        positions = torch.randint(0, 100, (rows,), generator=generator)
        slots = torch.randperm(64, generator=generator)[:rows]
        norms = (normal(size, seed=1), normal(size, seed=2)) if normed else (None, None)
        found, wanted = (make_cache(dtype, 4, 16, kv, size) for _ in range(2))
        rope = rope_of(100, rotary)
        arguments = (qkv, rope, positions, slots)
        ours = kernels.rotate_and_write(*arguments, found, heads, *norms, 1e-5)
        theirs = PLAIN.rotate_and_write(*arguments, wanted, heads, *norms, 1e-5)
        same(ours, theirs)
        same(found.keys.float(), wanted.keys.float(), 2**-7 if dtype != torch.float32 else 1e-5)
        assert torch.equal(found.values, wanted.values)


def test_numbers_are_rounded_into_the_cache_as_torch_rounds(kernels: CpuKernels) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 64 * 512, dtype=np.uint32)
    edges = [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x477FEFFF, 0x477FF000, 0x387FFFFF]
    edges += [0x38800000, 0x33000000, 0x33000001, 0x33800000, 1, 0x3F808000, 0x3F818000, 0x7F7FFFFF]
    bits[: len(edges)] = edges
    bits[1024:16384] = bits[1024:16384] % 0x20000000 + 0x2FFFFFFF  # where half precision lives
    numbers = torch.from_numpy(bits.view(np.float32)).view(512, 64)
    heads = Heads(1, 1, 64, 0, 1.0)
    qkv = torch.cat([torch.zeros(512, 128), numbers], dim=1)
    for dtype in (torch.bfloat16, torch.float16):
        cache = make_cache(dtype, 32, 16, 1, 64)
        rows = torch.arange(512)
        kernels.rotate_and_write(
            qkv, torch.zeros(512, 1), rows, rows, cache, heads, None, None, 0.0
        )
        found, wanted = cache.flat_values[:, 0], numbers.to(dtype)
        number = ~wanted.isnan()
        assert torch.equal(found.isnan(), wanted.isnan())
        assert torch.equal(found[number].view(torch.int16), wanted[number].view(torch.int16))


class Paged:
    """Sequences of given lengths in a cache, with their blocks in random order."""

    def __init__(
        self, lengths: list[int], heads: Heads, dtype: torch.dtype, block_size: int, seed: int = 0
    ) -> None:
        self.lengths, self.heads = lengths, heads
        needed = [-(-length // block_size) for length in lengths]
        generator = torch.Generator().manual_seed(seed)
        blocks = 1 + torch.randperm(sum(needed), generator=generator)
        self.cache = make_cache(dtype, 1 + sum(needed), block_size, heads.kv, heads.size)
        self.cache.keys.normal_(generator=generator)
        self.cache.values.normal_(generator=generator)
        self.tables = torch.zeros((len(lengths), max(needed) + 1), dtype=torch.int32)
        for row, part in enumerate(blocks.split(needed)):
            self.tables[row, : len(part)] = part
        self.query = torch.randn(
            (sum(lengths), heads.query * heads.size), generator=generator
        )  # of every token
        self.starts = np.cumsum([0, *lengths[:-1]])

    def attend(
        self, kernels: CpuKernels | PlainKernels, parts: list[tuple[int, int, int]]
    ) -> list[torch.Tensor]:
        """parts: (sequence, from token, to token), in one batch; each part's result."""
        query = torch.cat(
            [self.query[self.starts[s] + a : self.starts[s] + b] for s, a, b in parts]
        )
        rows = [b - a for _, a, b in parts]
        first = np.cumsum([0, *rows[:-1]])
        spans = torch.tensor(
            [[f, r, b] for f, r, (_, _, b) in zip(first, rows, parts, strict=True)],
            dtype=torch.int32,
        )
        segments = Segments(
            spans=spans,
            tables=self.tables[[s for s, _, _ in parts]].contiguous(),
            decode_start=0,
            max_tokens=max(b for _, _, b in parts),
            longest=max(rows),
        )
        found = kernels.attention(query, self.cache, segments, self.heads).clone()
        return list(found.split(rows))


GEOMETRIES = [
    Heads(12, 4, 64, 64, 0.125),
    Heads(4, 4, 32, 32, 0.3, window=40),
    Heads(8, 1, 128, 128, 0.09),
    Heads(3, 1, 20, 20, 0.2, window=7),
    Heads(2, 2, 96, 96, 0.1),
]


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("heads", GEOMETRIES, ids=str)
@pytest.mark.parametrize("block_size", [1, 16, 24])
def test_attention_agrees_with_torch(
    kernels: CpuKernels, dtype: torch.dtype, heads: Heads, block_size: int
) -> None:
    paged = Paged([1, 33, 600, 32, 5, 130], heads, dtype, block_size)
    parts = [(2, 0, 600), (5, 100, 130), (1, 0, 33), (0, 0, 1), (3, 31, 32), (4, 4, 5)]
    for ours, theirs in zip(paged.attend(kernels, parts), paged.attend(PLAIN, parts), strict=True):
        same(ours, theirs, 2e-6)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("heads", GEOMETRIES, ids=str)
def test_a_row_attends_to_the_same_bits_in_any_company_and_in_any_chunks(
    kernels: CpuKernels, dtype: torch.dtype, heads: Heads
) -> None:
    paged = Paged([1100, 70, 513], heads, dtype, 16)
    whole = paged.attend(kernels, [(0, 0, 1100), (1, 0, 70), (2, 0, 513)])
    random = np.random.default_rng(0)
    for threads in (1, 2, 5):
        set_threads(threads)
        for sequence, length in enumerate(paged.lengths):
            for token in {0, length // 2, length - 1, *random.integers(0, length, 4).tolist()}:
                (row,) = paged.attend(kernels, [(sequence, token, token + 1)])
                assert torch.equal(row[0], whole[sequence][token]), (threads, sequence, token)
        cuts = sorted({0, 1100, *random.integers(0, 1100, 6).tolist()})
        parts = [(0, a, b) for a, b in itertools.pairwise(cuts)]
        parts += [(1, 0, 69), (1, 69, 70), (2, 500, 513)]
        random.shuffle(parts)
        for (sequence, a, b), found in zip(parts, paged.attend(kernels, parts), strict=True):
            assert torch.equal(found, whole[sequence][a:b]), (threads, sequence, a, b)


def test_attention_shows_nan_only_to_the_rows_that_see_it(kernels: CpuKernels) -> None:
    heads = Heads(2, 1, 16, 16, 0.25)
    for where in ("keys", "values"):
        paged = Paged([200], heads, torch.float32, 16)
        slot = int(paged.tables[0, 100 // 16]) * 16 + 100 % 16
        getattr(paged.cache, f"flat_{where}")[slot] = math.nan
        (found,) = paged.attend(kernels, [(0, 0, 200)])
        assert found[:100].isfinite().all()
        assert found[100:].isnan().all()


def test_argmax_takes_the_lowest_id_of_the_largest_logit(kernels: CpuKernels) -> None:
    logits = normal(40, 1003)
    logits[0, [5, 700]] = 50.0
    logits[1, [1001, 1002]] = 50.0
    logits[2, 0] = -math.inf
    found = kernels.argmax(logits)
    assert torch.equal(found, logits.argmax(dim=-1))
    assert found[:2].tolist() == [5, 1001]


def test_argmax_and_draw_mark_rows_without_a_finite_maximum(kernels: CpuKernels) -> None:
    for size in (3, 8, 1003):
        for place in (0, size // 2, size - 1):
            logits = normal(4, size)
            logits[0, place] = math.nan
            logits[1, place] = math.inf
            logits[2] = -math.inf
            assert (kernels.argmax(logits) >= 0).tolist() == [False, False, False, True]
            drawn = kernels.draw(logits, [1.0] * 4, [0.5] * 4)
            assert (drawn >= 0).tolist() == [False, False, False, True]


def test_draw_is_the_inverse_of_the_cumulative_distribution(kernels: CpuKernels) -> None:
    random = np.random.default_rng(0)
    for size in (1, 5, 256, 257, 3000):
        logits = 3 * normal(64, size)
        logits[:, 0] = -math.inf if size > 1 else 0.0
        heat = random.uniform(0.2, 2.0, 64).tolist()
        uniform = [0.0, 1.0 - 2**-53, *random.uniform(size=62).tolist()]
        found = kernels.draw(logits, heat, uniform)
        wide = logits.double() / torch.tensor(heat, dtype=torch.float64)[:, None]
        cumulative = torch.softmax(wide, dim=-1).cumsum(dim=-1)
        for row, (token, point) in enumerate(zip(found.tolist(), uniform, strict=True)):
            assert logits[row, token] > -math.inf
            assert cumulative[row, token] > point - 1e-5
            assert token == 0 or cumulative[row, token - 1] <= point + 1e-5


def test_draw_follows_the_distribution(kernels: CpuKernels) -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125])).expand(1000, 4).contiguous()
    points = [(i + 0.5) / 1000 for i in range(1000)]
    counts = kernels.draw(logits, [1.0] * 1000, points).bincount(minlength=4)
    assert counts.tolist() == [500, 250, 125, 125]


def test_a_point_on_the_boundary_of_two_tokens_draws_the_second(kernels: CpuKernels) -> None:
    drawn = kernels.draw(torch.zeros(4, 4), [1.0] * 4, [0.0, 0.25, 0.5, 0.75])
    assert drawn.tolist() == [0, 1, 2, 3]
