"""The kernels of `lmi.dist.native`: C++ over threads of our own, float32 between operations.

Batch-invariant bit for bit, whatever the weights' and the cache's format: see linear.h and
attention.cpp for the order of every sum. An operation's result lies in memory that the same
operation writes again three calls later.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_double
from typing import Any, Final

import torch

from lmi.dist.float8 import FLOAT8
from lmi.dist.kernels.base import Heads, Linear, Segments
from lmi.dist.kernels.cpu_float8 import float8
from lmi.dist.kernels.cpu_linear import FORMATS, Outputs, dense, low_bit
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kv import LayerCache
from lmi.dist.native.library import (
    AttentionStruct,
    library_target,
    load_library,
    threads,
)

# Of K and V there is one more.
CACHE_FORMATS: Final = {**FORMATS, FLOAT8: 3}


class CpuKernels:
    """See `lmi.dist.kernels.base.Kernels`. Raises LibraryMissing where the library is not built.

    Rows, residuals and queries must be contiguous float32 on the CPU. For the threads of one core
    at a time, and each operation from one thread at a time.
    """

    activation = torch.float32
    batch_invariant = True

    def __init__(self) -> None:
        self._library = load_library()
        self.name = f"C++ for {library_target()}"
        self._linear_outputs = Outputs()
        self._embedded = Outputs()
        self._normed = Outputs()
        self._queries = Outputs()
        self._attended = Outputs()
        self._gated = Outputs()
        # By the identity of the objects they were made from, which they keep alive.
        self._wide: dict[int, tuple[int, torch.Tensor, torch.Tensor]] = {}
        self._shapes: dict[tuple[int, int], tuple[Any, AttentionStruct, LayerCache, Heads]] = {}

    @property
    def info(self) -> dict[str, str]:
        """For the start-up log."""
        return {"instruction set": library_target(), "threads": str(threads())}

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """Packed for the vector width; float32, bfloat16 or float16, turned wide in registers.

        Processors that multiply bfloat16 themselves (avx512_bf16, amx_bf16) might do many rows
        faster by oneDNN. That is not measured, and its sums would depend on the batch.
        """
        return dense(self._library, weight, bias, self._linear_outputs)

    def low_bit_linear(self, weight: LowBitWeight, bias: torch.Tensor | None) -> Linear:
        """At its own bits in memory; see `lmi.dist.kernels.cpu_linear.low_bit` and `cpu_float8`."""
        if weight.is_float8:
            return float8(self._library, weight, bias, self._linear_outputs)
        return low_bit(self._library, weight, bias, self._linear_outputs)

    def embed(self, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """See the protocol. An id outside of the table is undefined behaviour."""
        count, size = len(ids), table.shape[1]
        out, address = self._embedded.take(count, size)
        self._library.lmi_embed(
            FORMATS[table.dtype], table.data_ptr(), ids.data_ptr(), address, count, size
        )
        return out

    def rms_norm(self, rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """See the protocol."""
        count, size = rows.shape
        out, address = self._normed.take(count, size)
        self._library.lmi_rms_norm(
            rows.data_ptr(), self._floats(weight), address, count, size, epsilon
        )
        return out

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """See the protocol."""
        count, size = residual.shape
        out, address = self._normed.take(count, size)
        self._library.lmi_add_rms_norm(
            residual.data_ptr(),
            delta.data_ptr(),
            self._floats(weight),
            address,
            count,
            size,
            epsilon,
        )
        return out

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
        count = len(qkv)
        out, address = self._queries.take(count, heads.query * heads.size)
        self._library.lmi_rotate_and_write(
            self._shape(cache, heads),
            qkv.data_ptr(),
            rope.data_ptr(),
            positions.data_ptr(),
            slots.data_ptr(),
            None if query_norm is None else self._floats(query_norm),
            None if key_norm is None else self._floats(key_norm),
            epsilon,
            address,
            count,
        )
        return out

    def attention(
        self, query: torch.Tensor, cache: LayerCache, segments: Segments, heads: Heads
    ) -> torch.Tensor:
        """See the protocol."""
        count, size = query.shape
        out, address = self._attended.take(count, size)
        sequences, width = segments.tables.shape
        self._library.lmi_attention(
            self._shape(cache, heads),
            query.data_ptr(),
            address,
            segments.spans.data_ptr(),
            sequences,
            segments.tables.data_ptr(),
            width,
        )
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        count, width = gate_up.shape
        out, address = self._gated.take(count, width // 2)
        self._library.lmi_silu_mul(gate_up.data_ptr(), address, count, width // 2)
        return out

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        count, size = logits.shape
        ids = torch.empty(count, dtype=torch.int64)
        self._library.lmi_argmax(logits.data_ptr(), ids.data_ptr(), count, size)
        return ids

    def draw(
        self, logits: torch.Tensor, temperature: Sequence[float], uniform: Sequence[float]
    ) -> torch.Tensor:
        """See the protocol; -1 where a row holds a NaN or no finite maximum."""
        count, size = logits.shape
        ids = torch.empty(count, dtype=torch.int64)
        doubles = c_double * count
        self._library.lmi_draw(
            logits.data_ptr(),
            doubles(*temperature),
            doubles(*uniform),
            ids.data_ptr(),
            count,
            size,
        )
        return ids

    def _floats(self, weight: torch.Tensor) -> int:
        """The address of a norm's weight in float32."""
        found = self._wide.get(id(weight))
        if found is None:
            wide = weight.to(torch.float32).contiguous()
            found = self._wide[id(weight)] = (wide.data_ptr(), wide, weight)
        return found[0]

    def _shape(self, cache: LayerCache, heads: Heads) -> Any:
        found = self._shapes.get((id(cache), id(heads)))
        if found is None:
            struct = AttentionStruct(
                format=CACHE_FORMATS[cache.keys.dtype],
                scaling=heads.scaling * cache.shape.key_scale,
                query_heads=heads.query,
                kv_heads=heads.kv,
                size=heads.size,
                rotary=heads.rotary,
                block_size=cache.keys.shape[1],
                window=heads.window or 0,
                keys=cache.keys.data_ptr(),
                values=cache.values.data_ptr(),
                key_factor=1 / cache.shape.key_scale,
                value_factor=1 / cache.shape.value_scale,
                value_scale=cache.shape.value_scale,
            )
            found = (byref(struct), struct, cache, heads)
            self._shapes[id(cache), id(heads)] = found
        return found[0]
