"""A quantised layer stands in a torch model where a plain one stood."""

from __future__ import annotations

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from lmi.core import ModelError
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.quantized.modules import LowBitLinear, replace_linear

IN, OUT = 64, 24


def weight_of(seed: int = 0, bits: int = 4) -> LowBitWeight:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 1 << bits, (OUT, IN), generator=generator, dtype=torch.uint8)
    return LowBitWeight(bits, values, torch.rand((OUT, 4), generator=generator))


def rows_of(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize(
    "kernels", [PlainKernels(torch.float32), CpuKernels()], ids=["plain", "cpu"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(IN,), (5, IN), (2, 3, IN), (1, 0, IN)])
def test_it_computes_what_the_widened_weight_would(
    kernels: Kernels, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    weight, bias = weight_of(), rows_of(OUT)
    rows = rows_of(*shape, dtype=dtype)
    found = LowBitLinear(weight, bias, kernels)(rows)
    want = torch.nn.functional.linear(rows.float(), weight.dense(), bias).to(dtype)
    assert (found.dtype, found.shape) == (want.dtype, want.shape)
    torch.testing.assert_close(
        found, want, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3
    )


def test_rows_that_are_not_contiguous_are_read_right() -> None:
    layer = LowBitLinear(weight_of(), None, CpuKernels())
    rows = rows_of(IN, 7).T
    torch.testing.assert_close(layer(rows), layer(rows.contiguous()))


def test_results_outlive_those_of_layers_that_are_called_later() -> None:
    kernels = CpuKernels()
    layers = [LowBitLinear(weight_of(seed), None, kernels) for seed in range(6)]
    rows = rows_of(3, IN)
    together = [layer(rows) for layer in layers]
    for found, layer in zip(together, layers, strict=True):
        assert torch.equal(found, layer(rows))


def test_the_weight_says_its_shape_and_dtype_but_has_no_numbers() -> None:
    layer = LowBitLinear(weight_of(), None, CpuKernels(), dtype=torch.bfloat16)
    assert layer.weight.shape == (OUT, IN)
    assert (layer.weight.dtype, layer.weight.device.type) == (torch.bfloat16, "meta")
    assert list(layer.parameters()) == list(layer.buffers()) == []
    assert layer.nbytes < OUT * IN * 2
    layer.to(torch.float16)
    assert layer(rows_of(IN)).dtype == torch.float32


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(IN, OUT), Conv1D(OUT, IN)])
        self.norm = torch.nn.LayerNorm(IN)


@pytest.mark.parametrize("name", ["layers.0", "layers.1"])
def test_it_takes_the_place_of_a_linear_layer(name: str) -> None:
    model, layer = Model(), LowBitLinear(weight_of(), None, CpuKernels())
    replace_linear(model, name, layer)
    assert model.get_submodule(name) is layer


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("layers.2", IN, "layers.2 has the sizes .24, 64., .* no linear layer there"),
        ("norm", IN, "no linear layer"),
        ("layers.1", IN, r"layers.1 .*\(24, 32\).* one of the sizes \(24, 64\)"),
    ],
)
def test_a_place_of_another_kind_or_size_is_named(name: str, inputs: int, message: str) -> None:
    weight = weight_of()
    if name == "layers.1":
        weight = weight.columns(0, inputs // 2)
    with pytest.raises(ModelError, match=message):
        replace_linear(Model(), name, LowBitLinear(weight, None, CpuKernels()))
