"""The matrix product that all kernels use: exact in float32, float32 sums otherwise."""

from __future__ import annotations

from typing import Any, Final

import triton
import triton.language as tl

# The interpreter keeps bfloat16 as its bits and would multiply these: it needs wider operands.
_INTERPRETED: Final = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def add_product(left: Any, right: Any, total: Any) -> Any:
    """total + left @ right: (m, k) and (k, n) of one dtype, total (m, n) float32."""
    if _INTERPRETED:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="ieee")
