"""BLOOM: one projection, ALiBi, the residual added inside the attention module."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor

from lmi.dist.adapters.patch import build_no_masks, merge_heads, replace_forward
from lmi.dist.attention import interface


def install(model: PreTrainedModel, positions: int) -> dict[str, Any]:
    """See `lmi.dist.adapters`."""
    seen = torch.ones((1, positions), device=model.device)
    bias = build_alibi_tensor(seen, model.config.n_head, model.dtype)[:, 0]
    replace_forward(model, BloomAttention, partial(_forward, bias))
    build_no_masks(model)
    return {}


def _forward(
    bias: torch.Tensor,
    module: Any,
    hidden_states: torch.Tensor,
    residual: torch.Tensor,
    *_: Any,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    fused = module.query_key_value(hidden_states).unflatten(-1, (module.num_heads, 3, -1))
    query, key, value = (x.transpose(1, 2) for x in fused.unbind(3))
    out, _weights = interface(module, query, key, value, key_bias=bias)
    return residual + module.dense(merge_heads(out)), None
