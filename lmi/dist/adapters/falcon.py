"""Falcon: both decoder architectures, multi-query or grouped heads, rotary or ALiBi."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import (
    FalconAttention,
    apply_rotary_pos_emb,
    build_alibi_tensor,
)

from lmi.dist.adapters.patch import build_no_masks, merge_heads, replace_forward
from lmi.dist.attention import interface


def install(model: PreTrainedModel, positions: int) -> dict[str, Any]:
    """See `lmi.dist.adapters`."""
    config = model.config
    bias = None
    if config.alibi:
        seen = torch.ones((1, positions), dtype=torch.int64, device=model.device)
        alibi = build_alibi_tensor(seen, config.num_attention_heads, model.dtype)
        # Falcon scales the bias together with the scores.
        bias = alibi[:, 0] / math.sqrt(config.hidden_size // config.num_attention_heads)
    replace_forward(model, FalconAttention, partial(_forward, bias))
    build_no_masks(model)
    return {}


def _forward(
    bias: torch.Tensor | None,
    module: Any,
    hidden_states: torch.Tensor,
    *_: Any,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **__: Any,
) -> tuple[torch.Tensor, None]:
    query, key, value = _project(module, hidden_states)
    if bias is None:
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    out, _weights = interface(module, query, key, value, key_bias=bias)
    return module.dense(merge_heads(out)), None


def _project(
    module: Any, hidden_states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value as (1, heads, tokens, size), with no more KV heads than the weights."""
    fused = module.query_key_value(hidden_states)
    size = module.head_dim
    if module.new_decoder_architecture or not module.multi_query:
        # Per KV head: its group of queries, then one key and one value.
        fused = fused.unflatten(-1, (module.num_kv_heads, -1, size))
        query, key, value = fused[..., :-2, :].flatten(2, 3), fused[..., -2, :], fused[..., -1, :]
    else:
        fused = fused.unflatten(-1, (-1, size))
        query, key, value = fused[..., :-2, :], fused[..., -2:-1, :], fused[..., -1:, :]
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
