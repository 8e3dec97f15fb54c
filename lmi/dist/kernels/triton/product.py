"""The matrix product that all kernels use, on tensor cores for every dtype, with float32 sums.

float32 is split into parts that TF32 holds, and three products of these keep all but the last few
bits (Markidis et al., "NVIDIA tensor core programmability", 2018). True float32 products would run
on the ordinary cores, and take the compiler minutes.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

# The interpreter keeps bfloat16 as its bits and would multiply these: it needs wider operands.
_INTERPRETED: Final = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def add_product(left: tl.tensor, right: tl.tensor, total: tl.tensor) -> tl.tensor:
    """total + left @ right: (m, k) and (k, n) of one dtype, total (m, n) float32."""
    if _INTERPRETED:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="tf32x3")
