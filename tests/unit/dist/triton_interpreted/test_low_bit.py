"""Quantised linear layers against their widened weight."""

from __future__ import annotations

import pytest
import torch

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.plain import PlainKernels
from tests.support.paged import assert_close, triton_kernels

OUT = 70


def weight_of(
    bits: int, inputs: int, groups: int, *, zeros: bool, order: bool, signed: bool = False
) -> LowBitWeight:
    low, high = (-127, 128) if signed else (0, 1 << bits)
    values = torch.randint(low, high, (OUT, inputs))
    return LowBitWeight(
        bits,
        values.to(torch.int8 if signed else torch.uint8),
        torch.rand(OUT, groups) / (1 << bits),
        torch.randint(0, 1 << bits, (OUT, groups)).float() if zeros else None,
        torch.arange(inputs)[torch.randperm(inputs)] % groups if order else None,
        8 if signed else None,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("bits", "inputs", "groups", "zeros", "order", "signed"),
    [
        (4, 128, 4, True, False, False),
        (4, 96, 3, False, True, False),
        (4, 75, 3, True, True, False),
        (3, 128, 2, True, False, False),
        (8, 128, 2, True, True, False),
        (8, 100, 1, False, False, True),
    ],
)
@pytest.mark.parametrize("rows", [1, 70])
def test_a_quantised_layer_is_the_plain_one(
    dtype: torch.dtype, rows: int,
    bits: int, inputs: int, groups: int, zeros: bool, order: bool, signed: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    weight = weight_of(bits, inputs, groups, zeros=zeros, order=order, signed=signed)
    bias = torch.randn(OUT).to(dtype) if zeros else None
    x = torch.randn(rows, inputs).to(dtype)
    layer = triton_kernels(dtype).low_bit_linear(weight, bias)
    wide_bias = None if bias is None else bias.float()
    expected = PlainKernels(torch.float32).low_bit_linear(weight, wide_bias)(x.float())
    assert_close(layer(x), expected)
    assert (layer.out_features, layer.in_features) == (OUT, inputs)


def test_four_bits_take_half_a_byte() -> None:
    weight = weight_of(4, 256, 2, zeros=False, order=False)
    layer = triton_kernels(torch.float16).low_bit_linear(weight, None)
    assert layer.nbytes == OUT * 128 + OUT * 2 * 4


@pytest.mark.parametrize("rounds", [None, 8])
def test_fp8_weights_are_widened_and_rows_keep_their_precision(rounds: int | None) -> None:
    values = torch.randn(OUT, 64).to(torch.float8_e4m3fn)
    weight = LowBitWeight(8, values, torch.rand(OUT, 2), activation_bits=rounds)
    x, bias = torch.randn(3, 64), torch.randn(OUT)
    layer = triton_kernels(torch.float32).low_bit_linear(weight, bias)
    assert_close(layer(x), torch.nn.functional.linear(x, weight.dense(), bias))
    assert layer.nbytes == OUT * 64 + OUT * 2 * 4 + OUT * 4
