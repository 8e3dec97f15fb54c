"""Linear layers whose weight is packed once for the processor's matrix kernels (oneDNN).

A plain product on a CPU packs the weight anew in every call, which for the few rows of a decode
step costs as much as the product. The packed weight replaces the plain one; only a weight that is
shared (a tied output layer) exists twice afterwards.

The two operators are private to torch: `packing_works` tries them before anything is replaced, and
without them the layers stay as they are. It compares values, never times, so that the same machine
always computes in the same way.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.nn.functional import linear

# Rows that the layout is made for: a decode step of a handful of requests.
EXPECTED_ROWS: Final = 8

# Relative difference to the plain product that rounding explains.
_TOLERANCE: Final = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)
    return packed


def _product(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return out


class PackedLinear(torch.nn.Linear):
    """A linear layer over a packed weight. `weight` keeps dtype and shape, but has no numbers."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.register_parameter("bias", plain.bias)
        self._packed = _pack(plain.weight.detach())
        # What reads the dtype or the shape still can; what reads the numbers fails at once.
        empty = torch.empty_like(plain.weight, device="meta")
        self.weight = torch.nn.Parameter(empty, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(.., in features) -> (.., out features)."""
        return _product(input, self._packed, self.bias)


def packing_works(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, for this dtype, on this processor, and they agree."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((64, 32), generator=generator).to(dtype)
    bias = torch.randn(64, generator=generator).to(dtype)
    for shape in ((1, 32), (1, EXPECTED_ROWS, 32), (1, 100, 32)):
        rows = torch.randn(shape, generator=generator).to(dtype)
        try:
            found = _product(rows, _pack(weight), bias)
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        want = linear(rows, weight, bias)
        if not torch.allclose(found, want, rtol=_TOLERANCE[dtype], atol=10 * _TOLERANCE[dtype]):
            return False
    return True


def pack_linears(model: torch.nn.Module) -> int:
    """Replace every plain linear layer of a CPU model; returns how many were."""
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            # A library's quantised weight may stand in a plain layer (torchao).
            if type(child) is torch.nn.Linear and type(child.weight.data) is torch.Tensor:
                setattr(parent, name, PackedLinear(child))
                count += 1
    return count
