"""Packed linear layers compute what plain ones do."""

from __future__ import annotations

import pytest
import torch

from lmi.dist.linear import PackedLinear, pack_linears, packing_works

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not packing_works(torch.float32), reason="torch has no packing operators here")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 8, 77])
def test_a_packed_layer_equals_the_plain_one(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(48, 80, bias=bias).requires_grad_(False)
    packed = PackedLinear(plain)
    values = torch.randn(1, rows, 48)
    assert torch.allclose(packed(values), plain(values), atol=1e-5)
    assert packed.weight.shape == plain.weight.shape
    assert packed.weight.dtype == plain.weight.dtype
    assert packed.weight.is_meta


@pytest.mark.skipif(not packing_works(torch.float32), reason="torch has no packing operators here")
def test_only_plain_linear_layers_are_replaced() -> None:
    class Special(torch.nn.Linear):
        """A subclass may compute something else."""

    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4), Special(4, 4), torch.nn.Sequential(torch.nn.Linear(4, 4))
    ).requires_grad_(False)
    values = torch.randn(2, 4)
    before = model(values)
    assert pack_linears(model) == 2
    assert type(model[1]) is Special
    assert torch.allclose(model(values), before, atol=1e-6)
