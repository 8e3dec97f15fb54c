"""MPT: one projection with optional clipping, ALiBi."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.mpt.modeling_mpt import MptAttention, build_mpt_alibi_tensor

from lmi.dist.adapters.patch import merge_heads, replace_forward
from lmi.dist.attention import interface


def install(model: PreTrainedModel, positions: int) -> dict[str, Any]:
    """See `lmi.dist.adapters`."""
    alibi = build_mpt_alibi_tensor(model.config.n_heads, positions)[:, 0]
    # A softmax does not change when all scores move together: start at 0 for precision.
    bias = (alibi - alibi[:, :1]).to(device=model.device, dtype=model.dtype)
    replace_forward(model, MptAttention, partial(_forward, bias))
    # The model insists on a mask; a 4-D one is taken as it is, and the attention never reads it.
    return {"attention_mask": torch.zeros((1, 1, 1, 1), device=model.device)}


def _forward(
    bias: torch.Tensor, module: Any, hidden_states: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    fused = module.Wqkv(hidden_states)
    if module.clip_qkv:
        fused = fused.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    query, key, value = (
        x.unflatten(-1, (module.n_heads, module.head_dim)).transpose(1, 2)
        for x in fused.chunk(3, dim=-1)
    )
    out, _weights = interface(
        module, query, key, value, scaling=module.softmax_scale, key_bias=bias
    )
    return module.out_proj(merge_heads(out)), None
