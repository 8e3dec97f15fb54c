"""What a decoder is computed with: one protocol, an implementation per kind of processor.

`plain` (torch's operators) is the meaning: the others must give its numbers, within rounding. `cpu`
is our C++ library, `triton` our GPU kernels.

Rules that every implementation keeps, and the tests hold it to:
- A row's result is a function of that row's inputs and of its own sequence's cache only: bit for
  bit the same whatever rows stand beside it, and however its prompt was cut into chunks. `plain`
  and libraries such as cuBLAS can't promise that; `Kernels.batch_invariant` says who does.
- Sums are taken in float32 at least, also where weights, activations or the cache are narrower.
- A tensor that an operation returns is valid until the same operation is called twice more: an
  implementation may reuse its memory. Arguments named `residual` are changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kv import LayerCache


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Which rows of a packed batch belong to which sequence, on the model's device.

    spans: (sequences, 3) int32: first row, number of rows, and the sequence's tokens up to and with
    the last of those rows (so its past is tokens minus rows). A decoding sequence has one row, a
    prefill or a speculated one several. tables: (sequences, width) int32: the numbers of a
    sequence's KV blocks, padded with the trash block. decode_start: index of the first of the
    trailing sequences that have exactly one row each. max_tokens: the largest of the spans' token
    counts. longest: the largest number of rows of one sequence.
    """

    spans: torch.Tensor
    tables: torch.Tensor
    decode_start: int
    max_tokens: int
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """The geometry of one attention layer on this rank.

    query, kv: numbers of heads. size: numbers per head, for query, key and value alike. rotary:
    leading numbers of a head that are rotated (in halves, as Llama does), at most size. scaling: of
    the scores. window: tokens that a token sees, with itself, or None for all before it.
    """

    query: int
    kv: int
    size: int
    rotary: int
    scaling: float
    window: int | None = None


class Linear(Protocol):
    """A linear layer whose weight is prepared for the processor."""

    in_features: int
    out_features: int
    nbytes: int  # of weight, scales and bias in memory

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in_features) -> (rows, out_features), both of the kernels' activation dtype."""


class Kernels(Protocol):
    """The operations of a decoder. Rows are tokens; all tensors are contiguous.

    name: for people and logs. activation: dtype of the rows between operations (a CPU computes in
    float32 even where weights and cache are narrower).
    """

    name: str
    activation: torch.dtype
    batch_invariant: bool

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """Prepare weight (out, in) and bias (out) once; the originals are not kept."""

    def low_bit_linear(self, weight: LowBitWeight, bias: torch.Tensor | None) -> Linear:
        """The same for a quantised weight, which stays quantised in memory."""

    def embed(self, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """table (vocabulary, hidden), ids (rows) int64 -> (rows, hidden)."""

    def rms_norm(self, rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """RMSNorm (Zhang and Sennrich, 2019) of each row (rows, hidden)."""

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """residual += delta, in place; returns the RMSNorm of the new residual."""

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
        """Rotate query and key, write key and value into the cache, return the query.

        qkv: (rows, (query + 2 * kv) * size), queries first, then keys, then values. rope:
        (positions, rotary) float32: the cosines of a position's rotary / 2 angles, then the sines.
        positions, slots: (rows) int64. query_norm, key_norm: (size) weights of a per-head RMSNorm
        before the rotation (Qwen3), or None. Returns (rows, query * size).
        """

    def attention(
        self, query: torch.Tensor, cache: LayerCache, segments: Segments, heads: Heads
    ) -> torch.Tensor:
        """Causal attention of each row over its sequence's cached keys and values.

        query (rows, query heads * size) -> the same shape. The rows' own K and V are already
        written. Prefill, decode and speculated rows alike.
        """

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """(rows, 2 * width) -> (rows, width): silu(first half) * second half."""

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """logits (rows, vocabulary) -> (rows) int64: the lowest id among the largest; -1 where a
        row holds a NaN or no finite maximum."""

    def draw(
        self, logits: torch.Tensor, temperature: Sequence[float], uniform: Sequence[float]
    ) -> torch.Tensor:
        """One token per row (rows) int64, without truncation: the id at which the cumulative
        softmax(logits / temperature), summed in the order of ids, passes uniform (0 to 1)."""
