"""Linear layers whose weight stays quantised in memory and is widened tile by tile in registers.

4-bit numbers lie two to a byte, 3-bit ones take 4 bits too, 8-bit ones a byte. Scales (and zeros)
are per group of inputs, as in GPTQ and AWQ. Where the rows are quantised too (W8A8), they are
rounded to 8 bits with one scale per row first; the product itself runs in the rows' dtype, which
holds all 8-bit numbers exactly. One simple tile per dtype: for correctness and memory first.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.triton.product import add_product

_TILE_ROWS: Final = 64  # of a prefill; fewer rows take the next power of two from 16
_TILE_OUT: Final = 64
_TILE_IN: Final = 64


class LowBitLinear:
    """See `lmi.dist.kernels.base.Linear`. The weight moves to the device in its packed form."""

    def __init__(
        self, weight: LowBitWeight, bias: torch.Tensor | None, device: torch.device
    ) -> None:
        self.out_features, self.in_features = weight.out_features, weight.in_features
        self._packed_in_nibbles = weight.bits <= 4
        self._rounds_rows = weight.activation_bits is not None
        values = weight.values
        if self._packed_in_nibbles:
            if self.in_features % 2:
                values = torch.nn.functional.pad(values, (0, 1))
            values = values[:, 0::2] | (values[:, 1::2] << 4)
        self._values = values.contiguous().to(device)
        self._scales = weight.scales.contiguous().to(device)
        self._zeros = None if weight.zeros is None else weight.zeros.contiguous().to(device)
        self._middle = 0.0 if weight.bits == 8 else float(1 << (weight.bits - 1))
        self._order = None if weight.group is None else weight.group.to(torch.int32).to(device)
        self._bias = None if bias is None else bias.to(device)
        kept = (self._values, self._scales, self._zeros, self._order, self._bias)
        self.nbytes = sum(tensor.nbytes for tensor in kept if tensor is not None)

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""
        count, groups = rows.shape[0], self._scales.shape[1]
        row_scales = None
        if self._rounds_rows:
            rows, row_scales = _round_rows(rows)
        out = rows.new_empty((count, self.out_features))
        tile_rows = max(16, min(_TILE_ROWS, triton.next_power_of_2(count)))
        grid = (triton.cdiv(count, tile_rows), triton.cdiv(self.out_features, _TILE_OUT))
        nothing = rows  # a pointer that is not read
        _low_bit_product[grid](
            rows, self._values, self._scales,
            nothing if self._zeros is None else self._zeros,
            nothing if self._order is None else self._order,
            nothing if self._bias is None else self._bias,
            nothing if row_scales is None else row_scales,
            out, count, self._middle,
            IN=self.in_features, OUT=self.out_features, GROUPS=groups,
            NIBBLES=self._packed_in_nibbles, ZEROS=self._zeros is not None,
            ORDER=self._order is not None, BIAS=self._bias is not None,
            ROW_SCALES=row_scales is not None,
            TILE_ROWS=tile_rows, TILE_OUT=_TILE_OUT, TILE_IN=_TILE_IN, num_warps=4, num_stages=2,
        )  # fmt: skip
        return out


def _round_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row as whole numbers from -127 to 127 (in the rows' dtype) and its scale in float32."""
    wide = rows.float()
    scale = wide.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return (wide / scale).round().to(rows.dtype), scale[:, 0].contiguous()


@triton.jit
def _low_bit_product(
    rows: tl.tensor, values: tl.tensor, scales: tl.tensor, zeros: tl.tensor, order: tl.tensor,
    bias: tl.tensor, row_scales: tl.tensor, out: tl.tensor, count: tl.tensor, middle: tl.tensor,
    IN: tl.constexpr, OUT: tl.constexpr, GROUPS: tl.constexpr, NIBBLES: tl.constexpr,
    ZEROS: tl.constexpr, ORDER: tl.constexpr, BIAS: tl.constexpr, ROW_SCALES: tl.constexpr,
    TILE_ROWS: tl.constexpr, TILE_OUT: tl.constexpr, TILE_IN: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    column = tl.program_id(1) * TILE_OUT + tl.arange(0, TILE_OUT)
    row_there = row < count
    column_there = column < OUT
    stored: tl.constexpr = (IN + 1) // 2 if NIBBLES else IN
    row_start = row.to(tl.int64) * IN
    weight_start = column.to(tl.int64) * stored
    total = tl.zeros((TILE_ROWS, TILE_OUT), tl.float32)
    for tile in range(0, IN, TILE_IN):
        number = tile + tl.arange(0, TILE_IN)
        inside = number < IN
        part = tl.load(
            rows + row_start[:, None] + number[None, :],
            mask=row_there[:, None] & inside[None, :],
            other=0.0,
        )
        there = inside[:, None] & column_there[None, :]
        if NIBBLES:
            pair = tl.load(
                values + weight_start[None, :] + (number // 2)[:, None], mask=there, other=0
            )
            shift = ((number % 2) * 4)[:, None]
            quantised = ((pair.to(tl.int32) >> shift) & 15).to(tl.float32)
        else:
            quantised = tl.load(
                values + weight_start[None, :] + number[:, None], mask=there, other=0
            ).to(tl.float32)
        group = number // (IN // GROUPS)
        if ORDER:
            group = tl.load(order + number, mask=inside, other=0)
        place = column[None, :] * GROUPS + group[:, None]
        zero = middle
        if ZEROS:
            zero = tl.load(zeros + place, mask=there, other=0.0)
        scale = tl.load(scales + place, mask=there, other=0.0)
        dense = ((quantised - zero) * scale).to(part.dtype)
        total = add_product(part, dense, total)
    if ROW_SCALES:
        total = total * tl.load(row_scales + row, mask=row_there, other=0.0)[:, None]
    if BIAS:
        added = tl.load(bias + column, mask=column_there, other=0.0).to(tl.float32)
        total = total + added[None, :]
    place = row.to(tl.int64)[:, None] * OUT + column[None, :]
    tl.store(
        out + place, total.to(out.dtype.element_ty), mask=row_there[:, None] & column_there[None, :]
    )
