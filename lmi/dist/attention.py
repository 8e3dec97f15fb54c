"""Paged attention, called by transformers' models through their attention interface.

`PagedLayer` stands on each attention module as `lmi_layer`; the function that transformers knows
under the name `lmi_paged` only hands over to it. So there is no module-level state, and several
models may live in one process.

Per layer: write this step's K and V into their slots; each prefill segment attends to its own K and
V or, for later chunks, to all of its sequence; all decode tokens attend together over a padded
gather, or one by one where that copies less (`lmi.dist.batch`). Grouped heads are never repeated in
memory: for decode the group is folded into the query length, for prefill K and V are expanded with
stride 0.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from lmi.dist.batch import DecodeView, PrefillPart, StepBatch
from lmi.dist.kv import LayerCache, Workspace

ATTENTION_NAME: Final = "lmi_paged"
LAYER_ATTRIBUTE: Final = "lmi_layer"


class Layer(Protocol):
    """What a model's attention module hands its projections to."""

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
        key_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """query (1, heads, tokens, size), key and value (1, KV heads, tokens, size), after the
        rotary embedding -> (1, tokens, heads, value size)."""


def interface(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    key_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls. Masks are ours, from the step's batch.

    key_bias (heads, positions) is added to the scores of a key by its position (ALiBi); only our
    own adapters pass it. What models may pass beyond these is looked at once, by the probe.
    """
    layer: Layer = getattr(module, LAYER_ATTRIBUTE)
    out = layer.attend(
        module,
        query,
        key,
        value,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
        key_bias=key_bias,
    )
    return out, None


def scores_to_values(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention over 4-D tensors that broadcast; mask None means causal from the first key.

    softcap: scores become cap * tanh(scores / cap) before the mask (Gemma 2). sinks: logits, of a
    shape that broadcasts to (.., .., query, 1), that take part in the softmax and then vanish
    (GPT-OSS).
    """
    if softcap is None and sinks is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
    if mask is None:
        raise ValueError("a mask is needed with softcap or sinks")
    scores = (query @ key.transpose(-1, -2)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + mask
    if sinks is None:
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
    else:
        column = sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)
        weights = torch.softmax(torch.cat([scores, column], dim=-1), dim=-1, dtype=torch.float32)
        weights = weights[..., :-1]
    return weights.to(query.dtype) @ value


class Step:
    """The batch of the step that runs; one object shared by all layers of a model."""

    __slots__ = ("batch",)

    def __init__(self) -> None:
        self.batch: StepBatch | None = None


class PagedLayer:
    """One layer's attention over its own KV cache."""

    __slots__ = ("_cache", "_step", "_workspace")

    def __init__(self, cache: LayerCache, step: Step, workspace: Workspace) -> None:
        self._cache = cache
        self._step = step
        self._workspace = workspace

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
        key_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `Layer.attend`."""
        batch = self._step.batch
        if batch is None:
            raise RuntimeError("the model was called outside a step")
        rows, keys, values = (x[0].transpose(0, 1) for x in (query, key, value))
        keys, values = self._cache.write(batch.slots, keys, values)
        call = _Call(scaling, window, softcap, sinks, key_bias, keys.shape[1])
        if not batch.prefill:
            return self._decode(batch, rows, call)[None]
        tokens, heads, _ = rows.shape
        out = query.new_empty((1, tokens, heads, values.shape[2]))
        for part in batch.prefill:
            part_rows = slice(part.start, part.stop)
            if part.slots is None:
                own = keys[part_rows], values[part_rows]
            else:
                flat_keys, flat_values = self._cache.flat_keys, self._cache.flat_values
                own = self._gather(flat_keys, flat_values, part.slots)
            out[0, part_rows] = call.prefill(batch, part, rows[part_rows], *own)
        if batch.decode_rows:
            start = batch.decode_start
            out[0, start:] = self._decode(batch, rows[start:], call)
        return out

    def _decode(self, batch: StepBatch, rows: torch.Tensor, call: _Call) -> torch.Tensor:
        """rows (sequences, heads, size) -> (sequences, heads, value size)."""
        view = batch.decode_view(call.window)
        cache = self._cache
        if isinstance(view, DecodeView):
            keys, values = self._gather(cache.keys, cache.values, view.blocks)
            return call.decode(
                rows,
                keys.view(view.rows, -1, *keys.shape[2:]),
                values.view(view.rows, -1, *values.shape[2:]),
                view.mask,
            )
        parts = []
        for index, slots in enumerate(view):
            keys, values = self._gather(cache.flat_keys, cache.flat_values, slots)
            parts.append(call.decode(rows[index : index + 1], keys[None], values[None], None))
        return torch.cat(parts)

    def _gather(
        self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape = self._cache.shape
        return (
            self._workspace.gather("keys", keys, rows, shape.key_scale),
            self._workspace.gather("values", values, rows, shape.value_scale),
        )


class _Call:
    """The parameters of one layer's attention in one step."""

    __slots__ = ("_bias", "_kv_heads", "_scaling", "_sinks", "_softcap", "window")

    def __init__(
        self,
        scaling: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
        key_bias: torch.Tensor | None,
        kv_heads: int,
    ) -> None:
        self.window = window
        self._scaling = scaling
        self._softcap = softcap
        self._sinks = sinks
        self._bias = key_bias
        self._kv_heads = kv_heads

    def prefill(
        self,
        batch: StepBatch,
        part: PrefillPart,
        rows: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """rows (tokens, heads, size) over keys (total, KV heads, size); heads go to dimensions 0
        (KV head) and 1 (its group)."""
        tokens, heads, size = rows.shape
        group = heads // self._kv_heads
        query = rows.view(tokens, self._kv_heads, group, size).permute(1, 2, 0, 3)
        window = self.window if self.window is not None and self.window < part.total else None
        mask = None
        plain = self._softcap is None and self._sinks is None and self._bias is None
        if part.past or window is not None or not plain:
            mask = batch.prefill_mask(part, window)
        if self._bias is not None and mask is not None:
            mask = mask + self._bias[:, : part.total].view(self._kv_heads, group, 1, part.total)
        out = scores_to_values(
            query,
            keys.transpose(0, 1)[:, None].expand(-1, group, -1, -1),
            values.transpose(0, 1)[:, None].expand(-1, group, -1, -1),
            mask,
            scaling=self._scaling,
            softcap=self._softcap,
            sinks=None if self._sinks is None else self._sinks.view(self._kv_heads, group, 1, 1),
        )
        return out.permute(2, 0, 1, 3).flatten(1, 2)

    def decode(
        self,
        rows: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """rows (sequences, heads, size) over keys (sequences, length, KV heads, size); a KV head's
        group stands where the query length does. mask None: every key is visible."""
        count, heads, size = rows.shape
        length = keys.shape[1]
        query = rows.view(count, self._kv_heads, heads // self._kv_heads, size)
        if mask is None:
            mask = keys.new_zeros((1, 1, 1, length))
        if self._bias is not None:
            mask = mask + self._bias[:, :length].view(1, self._kv_heads, -1, length)
        out = scores_to_values(
            query,
            keys.transpose(1, 2),
            values.transpose(1, 2),
            mask,
            scaling=self._scaling,
            softcap=self._softcap,
            sinks=None if self._sinks is None else self._sinks.view(1, self._kv_heads, -1, 1),
        )
        return out.reshape(count, heads, -1)
