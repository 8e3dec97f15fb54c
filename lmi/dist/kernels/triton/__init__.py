"""The kernels for GPUs, in Triton; matrix products are cuBLAS's, through torch.

Also run on a CPU by Triton's interpreter (TRITON_INTERPRET=1 before triton is imported), which is
how they are tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from lmi.dist.kernels.base import Heads, Linear, Segments
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.plain import PlainLinear, WidenedLinear
from lmi.dist.kernels.triton.activation import silu_mul
from lmi.dist.kernels.triton.decode import choose_splits, decode_attention, few_rows
from lmi.dist.kernels.triton.low_bit import LowBitLinear
from lmi.dist.kernels.triton.norm import rms_norm
from lmi.dist.kernels.triton.rotary import rotate_and_write
from lmi.dist.kernels.triton.sampling import argmax, draw
from lmi.dist.kernels.triton.varlen import choose_prefill
from lmi.dist.kv import LayerCache

_INTERPRETED_PROCESSORS: Final = 16  # stands in for a GPU's multiprocessors


class TritonKernels:
    """See `lmi.dist.kernels.base.Kernels`. Rows have the dtype of the weights.

    A row's attention, norms, rotation and sampling are the same whatever rows stand beside it; its
    matrix products are cuBLAS's, which chooses its kernel by the number of rows: so
    `batch_invariant` is False.
    """

    name = "triton"
    batch_invariant = False

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.activation = dtype
        self._device = device
        self._prefill = choose_prefill(device, dtype)
        self._processors = (
            torch.cuda.get_device_properties(device).multi_processor_count
            if device.type == "cuda"
            else _INTERPRETED_PROCESSORS
        )

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """The weight itself."""
        return PlainLinear(weight, bias)

    def low_bit_linear(self, weight: LowBitWeight, bias: torch.Tensor | None) -> Linear:
        """The quantised weight, packed on the device; FP8 as it is, widened in each call."""
        if weight.is_float8:
            there = None if bias is None else bias.to(self._device)
            return WidenedLinear(weight.to(self._device), there)
        return LowBitLinear(weight, bias, self._device)

    def embed(self, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """table[ids]."""
        return torch.nn.functional.embedding(ids, table).to(self.activation)

    def rms_norm(self, rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """See the protocol."""
        return rms_norm(rows, None, weight, epsilon)

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """See the protocol."""
        return rms_norm(residual, delta, weight, epsilon)

    def rotate_and_write(
        self,
        qkv: torch.Tensor,
        rope: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        cache: LayerCache,
        heads: Heads,
        query_norm: torch.Tensor | None,
        key_norm: torch.Tensor | None,
        epsilon: float,
    ) -> torch.Tensor:
        """See the protocol."""
        return rotate_and_write(
            qkv, rope, positions, slots, cache, heads, query_norm, key_norm, epsilon
        )

    def attention(
        self, query: torch.Tensor, cache: LayerCache, segments: Segments, heads: Heads
    ) -> torch.Tensor:
        """See the protocol. Which kernel computes a row depends on the rows of its own sequence
        only: many are a prefill, a few (speculated) or one (a decode) are split over programs."""
        out = torch.empty_like(query)
        spans, tables, start = segments.spans, segments.tables, segments.decode_start
        few = few_rows(heads)
        if start and segments.longest > few:
            # First: it may write all of out.
            self._prefill(
                query, out, cache, spans[:start], tables[:start], heads,
                longest=segments.longest, max_tokens=segments.max_tokens,
            )  # fmt: skip
        few = min(segments.longest, few)
        for part, rows in ((slice(0, start), few), (slice(start, spans.shape[0]), 1)):
            sequences = part.stop - part.start
            if sequences:
                splits = choose_splits(sequences, heads.kv, segments.max_tokens, self._processors)
                decode_attention(
                    query, out, cache, spans[part], tables[part], heads,
                    longest=rows, max_tokens=segments.max_tokens, splits=splits,
                )  # fmt: skip
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        return silu_mul(gate_up)

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        return argmax(logits)

    def draw(
        self, logits: torch.Tensor, temperature: Sequence[float], uniform: Sequence[float]
    ) -> torch.Tensor:
        """See the protocol; -1 where `argmax` says so."""
        return draw(logits, temperature, uniform)
