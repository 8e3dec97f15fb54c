"""Norms, rotation with the cache's write, and the activation, against plain torch."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kernels.triton import TritonKernels
from tests.support.paged import assert_close, heads_of, make_cache, triton_kernels

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(params=DTYPES, ids=str)
def both(request: pytest.FixtureRequest) -> tuple[TritonKernels, PlainKernels]:
    torch.manual_seed(0)
    return triton_kernels(request.param), PlainKernels(request.param)


@pytest.mark.parametrize("hidden", [1, 64, 80, 3000])
def test_the_norm_is_the_plain_one(both: tuple[TritonKernels, PlainKernels], hidden: int) -> None:
    ours, plain = both
    rows = (torch.randn(5, hidden) * 3).to(ours.activation)
    rows[2] = 0
    weight = torch.randn(hidden).to(ours.activation)
    assert_close(ours.rms_norm(rows, weight, 1e-5), plain.rms_norm(rows, weight, 1e-5))


@pytest.mark.parametrize("hidden", [64, 80, 3000])
def test_the_norm_after_an_addition_changes_the_residual_in_place(
    both: tuple[TritonKernels, PlainKernels], hidden: int
) -> None:
    ours, plain = both
    rows, delta = torch.randn(2, 5, hidden).to(ours.activation)
    weight = torch.randn(hidden).to(ours.activation)
    residual, expected = rows.clone(), rows.clone()
    found = ours.add_rms_norm(residual, delta, weight, 1e-6)
    assert_close(found, plain.add_rms_norm(expected, delta, weight, 1e-6))
    assert_close(residual, expected)


# (query heads, KV heads, size, rotary, norms)
@pytest.mark.parametrize(
    ("query", "kv", "size", "rotary", "query_norm", "key_norm"),
    [
        (4, 4, 64, 64, False, False),
        (6, 2, 80, 32, False, False),
        (8, 1, 128, 128, True, True),
        (40, 8, 96, 96, True, False),
        (3, 1, 64, 32, False, True),
    ],
)
def test_rotation_and_write_are_the_plain_ones(
    both: tuple[TritonKernels, PlainKernels],
    query: int, kv: int, size: int, rotary: int, query_norm: bool, key_norm: bool,
) -> None:  # fmt: skip
    ours, plain = both
    heads = dataclasses.replace(heads_of(query, kv, size), rotary=rotary)
    rows = 5
    qkv = torch.randn(rows, (query + 2 * kv) * size).to(ours.activation)
    rope = torch.randn(50, rotary)
    positions = torch.tensor([0, 49, 3, 17, 17])
    slots = torch.tensor([16, 79, 33, 1, 40])
    norms = torch.randn(2, size).to(ours.activation)
    arguments = (
        rope, positions, slots,
        norms[0] if query_norm else None, norms[1] if key_norm else None,
    )  # fmt: skip
    cache = make_cache(heads, 5, 16, ours.activation)
    expected_cache = make_cache(heads, 5, 16, ours.activation)
    for one, other in (
        (cache.keys, expected_cache.keys),
        (cache.values, expected_cache.values),
    ):
        one.zero_()
        other.zero_()
    rope, positions, slots, one_norm, other_norm = arguments
    found = ours.rotate_and_write(
        qkv, rope, positions, slots, cache, heads, one_norm, other_norm, 1e-6
    )
    expected = plain.rotate_and_write(
        qkv, rope, positions, slots, expected_cache, heads, one_norm, other_norm, 1e-6
    )
    assert_close(found, expected)
    assert_close(cache.keys, expected_cache.keys)
    assert torch.equal(cache.values, expected_cache.values)


@pytest.mark.filterwarnings("ignore:overflow")  # meant: e**200 is infinite, 1 over it is 0
@pytest.mark.parametrize("width", [1, 96, 1500])
def test_the_activation_is_the_plain_one(
    both: tuple[TritonKernels, PlainKernels], width: int
) -> None:
    ours, plain = both
    gate_up = (torch.randn(4, 2 * width) * 8).to(ours.activation)
    gate_up[0, 0] = -200
    assert_close(ours.silu_mul(gate_up), plain.silu_mul(gate_up))
