"""The kernels in torch's own operators: the meaning of each, on any device, and the fall-back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from lmi.dist.kernels.base import Heads, Linear, Segments
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kv import LayerCache, widened


class PlainLinear:
    """A weight as it is."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.out_features, self.in_features = weight.shape
        self._weight = weight
        self._bias = bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""
        return linear(rows, self._weight, self._bias)


class WidenedLinear:
    """A quantised weight, made dense anew in each call: small in memory, slow."""

    def __init__(self, weight: LowBitWeight, bias: torch.Tensor | None) -> None:
        self.out_features, self.in_features = weight.out_features, weight.in_features
        self._weight = weight
        self._bias = bias
        kept = (weight.values, weight.scales, weight.zeros, weight.group, bias)
        self.nbytes = sum(tensor.nbytes for tensor in kept if tensor is not None)

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in) -> (rows, out)."""
        if self._weight.activation_bits is not None and not self._weight.is_float8:
            rows = _rounded(rows)
        return linear(rows, self._weight.dense().to(rows.dtype), self._bias)


def _rounded(rows: torch.Tensor) -> torch.Tensor:
    """Each row as 8-bit numbers times one scale would hold it (dynamic, symmetric)."""
    scale = rows.float().abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return ((rows.float() / scale).round() * scale).to(rows.dtype)


class PlainKernels:
    """See `lmi.dist.kernels.base.Kernels`. Rows have the dtype of the weights."""

    name = "plain torch"
    batch_invariant = False

    def __init__(self, dtype: torch.dtype) -> None:
        self.activation = dtype

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """The weight itself."""
        bias = None if bias is None else bias.to(self.activation)
        return PlainLinear(weight.to(self.activation), bias)

    def low_bit_linear(self, weight: LowBitWeight, bias: torch.Tensor | None) -> Linear:
        """The quantised weight, widened in each call."""
        return WidenedLinear(weight, bias)

    def embed(self, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """table[ids]."""
        return table[ids].to(self.activation)

    def rms_norm(self, rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """In float32; the weight is applied in the rows' dtype, as transformers does."""
        wide = rows.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
        return weight.to(rows.dtype) * wide.to(rows.dtype)

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """residual += delta, then its norm."""
        residual += delta
        return self.rms_norm(residual, weight, epsilon)

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
        rows = qkv.shape[0]
        parts = qkv.view(rows, heads.query + 2 * heads.kv, heads.size)
        query, key, value = parts.split([heads.query, heads.kv, heads.kv], dim=1)
        if query_norm is not None:
            query = self.rms_norm(query, query_norm, epsilon)
        if key_norm is not None:
            key = self.rms_norm(key, key_norm, epsilon)
        cosines, sines = rope[positions][:, None].chunk(2, dim=-1)
        query, key = (_rotate(x, cosines, sines) for x in (query, key))
        cache.write(slots, key, value)
        return query.reshape(rows, -1)

    def attention(
        self, query: torch.Tensor, cache: LayerCache, segments: Segments, heads: Heads
    ) -> torch.Tensor:
        """One sequence after the other."""
        out = torch.empty_like(query)
        group = heads.query // heads.kv
        for (first, rows, total), table in zip(
            segments.spans.tolist(), segments.tables.long(), strict=True
        ):
            block_size = cache.keys.shape[1]
            blocks = table[: -(-total // block_size)]
            keys, values = (
                widened(kept[blocks].flatten(0, 1)[:total], scale, query.dtype).transpose(0, 1)[
                    :, None
                ]
                for kept, scale in (
                    (cache.keys, cache.shape.key_scale),
                    (cache.values, cache.shape.value_scale),
                )
            )
            own = query[first : first + rows].view(rows, heads.kv, group, heads.size)
            seen = _visible(rows, total, heads.window, query.device)
            found = scaled_dot_product_attention(
                own.permute(1, 2, 0, 3),
                keys.expand(-1, group, -1, -1),
                values.expand(-1, group, -1, -1),
                attn_mask=seen,
                scale=heads.scaling,
            )
            out[first : first + rows] = found.permute(2, 0, 1, 3).reshape(rows, -1)
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up."""
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate) * up

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """The largest logit's lowest id; torch's own choice among equals is not promised."""
        best = logits.amax(dim=-1, keepdim=True)
        first = (logits == best).to(torch.uint8).argmax(dim=-1)
        return torch.where(torch.isfinite(best[:, 0]), first, -1)

    def draw(
        self, logits: torch.Tensor, temperature: Sequence[float], uniform: Sequence[float]
    ) -> torch.Tensor:
        """By the inverse of the cumulative distribution, in float64."""
        device = logits.device
        heat = torch.tensor(temperature, dtype=torch.float32, device=device)[:, None]
        shifted = (logits.float() - logits.float().amax(dim=-1, keepdim=True)) / heat
        cumulative = torch.softmax(shifted, dim=-1).double().cumsum(dim=-1)
        target = torch.tensor(uniform, dtype=torch.float64, device=device)[:, None]
        # right=True: a token of probability 0 can't be hit, not even by a target of exactly 0.
        index = torch.searchsorted(cumulative, target * cumulative[:, -1:], right=True)
        last = (cumulative < cumulative[:, -1:]).sum(dim=-1, keepdim=True)
        return torch.minimum(index, last)[:, 0]


def _rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """x (rows, heads, size); the first 2 * angles numbers of a head turn, in halves."""
    angles = cosines.shape[-1]
    wide = x.float()
    low, high, rest = wide[..., :angles], wide[..., angles : 2 * angles], wide[..., 2 * angles :]
    turned = [low * cosines - high * sines, high * cosines + low * sines, rest]
    return torch.cat(turned, dim=-1).to(x.dtype)


def _visible(rows: int, total: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(rows, total) bool: which keys each of the last `rows` tokens sees."""
    query = torch.arange(total - rows, total, device=device)[:, None]
    key = torch.arange(total, device=device)[None]
    seen = key <= query
    if window is not None:
        seen &= key > query - window
    return seen
