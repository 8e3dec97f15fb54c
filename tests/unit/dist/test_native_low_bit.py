"""Linear layers of few bits in C++ against what their quantised numbers mean."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.native.library import LibraryMissing, load_library, set_threads

try:
    load_library()
except LibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

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


def quantised(
    bits: int,
    outputs: int,
    inputs: int,
    groups: int,
    *,
    signed: bool = False,
    zeros: str = "none",
    shuffled: bool = False,
    scales: torch.dtype = torch.float16,
) -> LowBitWeight:
    generator = torch.Generator().manual_seed(bits)
    values = torch.randint(0, 1 << bits, (outputs, inputs), generator=generator)
    group = None
    if shuffled:
        group = torch.arange(inputs) * groups // inputs
        group = group[torch.randperm(inputs, generator=generator)]
    middle = torch.randint(0, 1 << bits, (outputs, groups), generator=generator).float()
    if signed:
        values, middle = values - 128, middle - 128
    chosen = {"none": None, "whole": middle, "any": middle + 0.3}[zeros]
    return LowBitWeight(
        bits=bits,
        values=values.to(torch.int8 if signed else torch.uint8),
        scales=(torch.rand((outputs, groups), generator=generator) / 16).to(scales).float(),
        zeros=chosen,
        group=group,
    )


WEIGHTS = {
    "4 bits": quantised(4, 100, 512, 4),
    "4 bits, zeros, act-order": quantised(4, 48, 384, 3, zeros="whole", shuffled=True),
    "4 bits, short groups, odd sizes": quantised(4, 33, 250, 25, zeros="any"),
    "3 bits": quantised(3, 64, 640, 5, scales=torch.bfloat16),
    "3 bits, act-order": quantised(3, 17, 300, 7, shuffled=True, zeros="whole"),
    "8 bits": quantised(8, 50, 257, 1, signed=True, scales=torch.float32),
    "8 bits from zero": quantised(8, 31, 128, 2, zeros="whole"),
    "8 bits, zeros": quantised(8, 31, 300, 3, zeros="whole", signed=True),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_low_bit_layer_is_the_product_with_its_dense_weight(
    kernels: CpuKernels, name: str
) -> None:
    weight = WEIGHTS[name]
    bias = normal(weight.out_features, seed=1)
    layer = kernels.low_bit_linear(weight, bias)
    assert (layer.in_features, layer.out_features) == (weight.in_features, weight.out_features)
    for rows in (1, 2, 3, 4, 5, 7, 130):
        x = normal(rows, weight.in_features, seed=2)
        wanted = x @ weight.dense().T + bias
        assert float((layer(x) - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_row_of_a_low_bit_layer_has_the_same_bits_in_any_company(
    kernels: CpuKernels, name: str
) -> None:
    weight = WEIGHTS[name]
    layer = kernels.low_bit_linear(weight, normal(weight.out_features, seed=1))
    x = normal(300, weight.in_features, seed=2)
    alone = torch.cat([layer(x[row : row + 1]).clone() for row in range(300)])
    for threads, rows in itertools.product((1, 2), (2, 3, 4, 5, 6, 11, 121, 300)):
        set_threads(threads)
        assert torch.equal(layer(x[:rows]), alone[:rows]), (threads, rows)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_low_bit_layer_is_nearer_to_the_exact_product_than_float32_is(
    kernels: CpuKernels, name: str
) -> None:
    weight = WEIGHTS[name]
    x = normal(64, weight.in_features, seed=3)
    exact = x.double() @ weight.dense().double().T
    ours = kernels.low_bit_linear(weight, None)(x).double()
    theirs = kernels.linear(weight.dense(), None)(x).double()
    assert float((ours - exact).norm()) <= float((theirs - exact).norm())


def test_numbers_of_very_different_sizes_lose_nothing_that_float32_would_keep(
    kernels: CpuKernels,
) -> None:
    weight = quantised(4, 40, 512, 4, zeros="whole")
    x = normal(9, 512, seed=4) * torch.logspace(-18, 18, 9)[:, None]
    x[3, 200] = 1e30  # one outlier in a run of its own size
    found = kernels.low_bit_linear(weight, None)(x).double()
    exact = x.double() @ weight.dense().double().T
    assert bool(((found - exact).norm(dim=1) <= 1e-6 * exact.norm(dim=1)).all())
    assert torch.equal(
        kernels.low_bit_linear(weight, None)(torch.zeros(2, 512)), torch.zeros(2, 40)
    )


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_sums_of_the_largest_numbers_do_not_overflow(kernels: CpuKernels, bits: int) -> None:
    values = torch.full((20, 1024), (1 << bits) - 1, dtype=torch.uint8)
    zeros = torch.zeros(20, 1)
    weight = LowBitWeight(bits, values, torch.ones(20, 1), zeros)
    for size in (1.0, -1.9999999):
        for rows in (1, 9):
            found = kernels.low_bit_linear(weight, None)(torch.full((rows, 1024), size))
            wanted = torch.full_like(found, ((1 << bits) - 1) * 1024 * size)
            assert torch.allclose(found, wanted, rtol=1e-6, atol=0)


def test_a_row_that_is_not_finite_is_nan_alone(kernels: CpuKernels) -> None:
    layer = kernels.low_bit_linear(WEIGHTS["4 bits"], None)
    for bad in (math.nan, math.inf):
        x = normal(9, 512)
        x[4, 511] = bad
        found = layer(x)
        assert found[4].isnan().all()
        assert found[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()


def test_four_bits_take_about_a_quarter_of_sixteen(kernels: CpuKernels) -> None:
    sixteen = 1024 * 1024 * 2
    for bits, zeros, share in ((4, "none", 0.26), (4, "whole", 0.265), (3, "whole", 0.215)):
        weight = quantised(bits, 1024, 1024, 8, zeros=zeros)
        assert kernels.low_bit_linear(weight, None).nbytes / sixteen < share
    weight = quantised(8, 1024, 1024, 8, signed=True)
    assert kernels.low_bit_linear(weight, None).nbytes / sixteen < 0.51


def w8a8(outputs: int, inputs: int) -> LowBitWeight:
    weight = quantised(8, outputs, inputs, 1, signed=True, scales=torch.float32)
    return LowBitWeight(8, weight.values, weight.scales, activation_bits=8)


@pytest.mark.parametrize("outputs", [1, 16, 33, 300])
@pytest.mark.parametrize("inputs", [1, 2, 63, 256, 1001])
def test_rows_of_8_bits_times_weights_of_8_bits_are_summed_exactly(
    kernels: CpuKernels, outputs: int, inputs: int
) -> None:
    weight, bias = w8a8(outputs, inputs), normal(outputs)
    layer = kernels.low_bit_linear(weight, bias)
    for rows in (1, 2, 5, 6, 7, 100):
        x = 3 * normal(rows, inputs, seed=1)
        scale = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        exact = (x / scale).round().double() @ weight.values.double().T
        wanted = exact * scale * weight.scales[:, 0] + bias
        found = layer(x)
        assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
        alone = torch.cat([layer(x[i : i + 1]).clone() for i in range(rows)])
        assert torch.equal(layer(x), alone)


def test_the_largest_numbers_of_8_bits_do_not_saturate(kernels: CpuKernels) -> None:
    for value in (-128, 127):
        values = torch.full((16, 4096), value, dtype=torch.int8)
        weight = LowBitWeight(8, values, torch.ones(16, 1), activation_bits=8)
        for sign in (1.0, -1.0):
            found = kernels.low_bit_linear(weight, None)(torch.full((3, 4096), 127 * sign))
            assert found.unique().tolist() == [127 * sign * value * 4096]


def test_a_row_of_8_bits_that_is_not_finite_is_nan_alone(kernels: CpuKernels) -> None:
    layer = kernels.low_bit_linear(w8a8(40, 65), None)
    for bad in (math.nan, math.inf):
        x = normal(9, 65)
        x[4, 64] = bad
        found = layer(x)
        assert found[4].isnan().all()
        assert found[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()
    assert torch.equal(layer(torch.zeros(2, 65)), torch.zeros(2, 40))


def test_8_bit_rows_with_groups_of_weights_are_rounded_as_in_plain_torch(
    kernels: CpuKernels,
) -> None:
    base = quantised(8, 32, 256, 2, zeros="whole")
    weight = LowBitWeight(8, base.values, base.scales, base.zeros, activation_bits=8)
    x = normal(5, 256)
    wanted = PLAIN.low_bit_linear(weight, None)(x)
    found = kernels.low_bit_linear(weight, None)(x)
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


def test_a_weight_that_is_a_part_of_another_is_the_same_layer_as_its_copy(
    kernels: CpuKernels,
) -> None:
    rows = normal(5, 64)
    whole = quantised(4, 48, 128, 8, zeros="whole")
    wide = normal(48, 128)
    int8 = LowBitWeight(8, whole.values.to(torch.int8), normal(48, 1).abs(), activation_bits=8)
    for weight in (whole, int8):
        part = weight.columns(64, 128)
        copy = replace(part, values=part.values.clone(memory_format=torch.contiguous_format))
        wanted = kernels.low_bit_linear(copy, None)(rows).clone()
        assert torch.equal(kernels.low_bit_linear(part, None)(rows), wanted)
    wanted = kernels.linear(wide[:, 64:].clone(), None)(rows).clone()
    assert torch.equal(kernels.linear(wide[:, 64:], None)(rows), wanted)
