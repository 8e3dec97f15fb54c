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

from lmi.dist.kernels.base import Heads, Linear, Segments
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kv import LayerCache
from lmi.dist.native.library import (
    AttentionStruct,
    LinearStruct,
    library_target,
    load_library,
    threads,
)

# `Format` of simd.h.
FORMATS: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

# Results in memory at once: the newest may be computed from the one before it, and the protocol
# promises the one before that.
_RING: Final = 3
_KEPT_VIEWS: Final = 4096


class Outputs:
    """Memory for an operation's results, used in turn. It grows to the largest result."""

    __slots__ = ("_buffers", "_turn", "_views")

    def __init__(self) -> None:
        self._buffers = [torch.empty(0) for _ in range(_RING)]
        self._views: list[dict[tuple[int, int], tuple[torch.Tensor, int]]] = [
            {} for _ in range(_RING)
        ]
        self._turn = 0

    def take(self, rows: int, width: int) -> tuple[torch.Tensor, int]:
        """(rows, width) float32, not cleared, and its address."""
        turn = self._turn = (self._turn + 1) % _RING
        views = self._views[turn]
        found = views.get((rows, width))
        if found is None:
            found = self._make(turn, rows, width)
            if len(views) >= _KEPT_VIEWS:
                views.clear()
            views[rows, width] = found
        return found

    def _make(self, turn: int, rows: int, width: int) -> tuple[torch.Tensor, int]:
        numbers = rows * width
        if self._buffers[turn].numel() < numbers:
            self._views[turn].clear()
            # Not an inference tensor: whoever gets a result may use it anywhere.
            with torch.inference_mode(False):
                self._buffers[turn] = torch.empty(numbers)
        view = self._buffers[turn][:numbers].view(rows, width)
        return view, view.data_ptr()


class CpuLinear:
    """A weight packed into panels, in the format it came in."""

    __slots__ = ("_call", "_kept", "_outputs", "_struct", "in_features", "nbytes", "out_features")

    def __init__(
        self, library: Any, weight: torch.Tensor, bias: torch.Tensor | None, outputs: Outputs
    ) -> None:
        self.out_features, self.in_features = weight.shape
        if weight.dtype not in FORMATS:
            raise ValueError(f"a weight of {weight.dtype}: expected one of {list(FORMATS)}")
        form = FORMATS[weight.dtype]
        size = (self.out_features, self.in_features)
        packed = torch.empty(library.lmi_packed_numbers(form, *size), dtype=weight.dtype)
        library.lmi_pack(form, weight.contiguous().data_ptr(), *size, packed.data_ptr())
        bias = None if bias is None else bias.to(torch.float32, copy=True)
        self._kept = (
            LinearStruct(
                format=form,
                inputs=self.in_features,
                outputs=self.out_features,
                weights=packed.data_ptr(),
                bias=None if bias is None else bias.data_ptr(),
            ),
            (packed, bias),
        )
        self._struct = byref(self._kept[0])
        self._call = library.lmi_linear
        self._outputs = outputs
        self.nbytes = packed.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in_features) -> (rows, out_features) float32."""
        count = len(rows)
        out, address = self._outputs.take(count, self.out_features)
        self._call(self._struct, rows.data_ptr(), address, count)
        return out


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
        """Packed for the vector width; float32, bfloat16 or float16, turned wide in registers."""
        return CpuLinear(self._library, weight, bias, self._linear_outputs)

    def low_bit_linear(self, weight: LowBitWeight, bias: torch.Tensor | None) -> Linear:
        """Widened in each call."""
        return PlainKernels(torch.float32).low_bit_linear(weight, bias)

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
                format=FORMATS[cache.keys.dtype],
                scaling=heads.scaling,
                query_heads=heads.query,
                kv_heads=heads.kv,
                size=heads.size,
                rotary=heads.rotary,
                block_size=cache.keys.shape[1],
                window=heads.window or 0,
                keys=cache.keys.data_ptr(),
                values=cache.values.data_ptr(),
            )
            found = (byref(struct), struct, cache, heads)
            self._shapes[id(cache), id(heads)] = found
        return found[0]
