"""Linear layers of FP8 weights over `lmi.dist.native`: widened in registers, block by block."""

from __future__ import annotations

from typing import Any, Final

import torch

from lmi.dist.kernels.cpu_linear import Outputs, Packed, address_of, floats, panelled
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.native.library import Float8Struct

# `kFloat8Factor` of float8.h: what the kernel's numbers are too small by.
_FACTOR: Final = 256.0


def float8(
    library: Any, weight: LowBitWeight, bias: torch.Tensor | None, outputs: Outputs
) -> Packed:
    """A weight whose numbers are e4m3, with any groups. Its rows are never rounded: this processor
    multiplies no FP8. Raises ValueError where a number is NaN."""
    count, inputs = weight.out_features, weight.in_features
    codes, groups = weight.values.view(torch.uint8).contiguous(), weight.groups()
    panel = library.lmi_panel()
    packed = torch.empty(-(-count // panel) * panel * inputs, dtype=torch.uint8)
    if library.lmi_pack_float8(codes.data_ptr(), count, inputs, packed.data_ptr()):
        raise ValueError("an FP8 weight that holds NaN: expected finite numbers")
    group_of, bias = groups.to(torch.int32), floats(bias)
    ends = torch.bincount(groups, minlength=weight.scales.shape[1]).cumsum(0).to(torch.int32)
    scales = panelled(weight.scales, panel) * _FACTOR
    struct = Float8Struct(
        inputs=inputs,
        outputs=count,
        codes=packed.data_ptr(),
        bias=address_of(bias),
        group_of=group_of.data_ptr(),
        ends=ends.data_ptr(),
        groups=weight.scales.shape[1],
        scales=scales.data_ptr(),
    )
    kept = (packed, bias, group_of, ends, scales)
    return Packed(library.lmi_float8_linear, struct, kept, outputs)
