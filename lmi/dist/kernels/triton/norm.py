"""RMSNorm, and RMSNorm after the residual's addition, in one pass over the row.

Source: Zhang and Sennrich, "Root mean square layer normalization" (2019).
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

_NUMBERS_PER_WARP: Final = 512  # 16 in each thread's registers
_MOST_WARPS: Final = 16


def rms_norm(
    rows: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, epsilon: float
) -> torch.Tensor:
    """The norm of rows (rows, hidden); with delta, rows += delta in place before."""
    count, hidden = rows.shape
    out = torch.empty_like(rows)
    tile = triton.next_power_of_2(hidden)
    _rms_norm[(count,)](
        rows, rows if delta is None else delta, weight, out, epsilon,
        HIDDEN=hidden, TILE=tile, ADD=delta is not None,
        num_warps=max(1, min(_MOST_WARPS, tile // _NUMBERS_PER_WARP)),
    )  # fmt: skip
    return out


@triton.jit
def _rms_norm(
    rows: tl.tensor, delta: tl.tensor, weight: tl.tensor, out: tl.tensor, epsilon: tl.tensor,
    HIDDEN: tl.constexpr, TILE: tl.constexpr, ADD: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.arange(0, TILE)
    inside = number < HIDDEN
    place = tl.program_id(0).to(tl.int64) * HIDDEN + number
    row = tl.load(rows + place, mask=inside, other=0.0)
    if ADD:
        more = tl.load(delta + place, mask=inside, other=0.0)
        row = (row.to(tl.float32) + more.to(tl.float32)).to(row.dtype)
        tl.store(rows + place, row, mask=inside)
    wide = row.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide, axis=0) / HIDDEN + epsilon)
    scale = tl.load(weight + number, mask=inside, other=0.0).to(row.dtype)
    # Rounded before and after the weight, as the plain kernels and transformers do.
    found = wide.to(row.dtype).to(tl.float32) * scale.to(tl.float32)
    tl.store(out + place, found.to(row.dtype), mask=inside)
