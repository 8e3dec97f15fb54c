"""GPT-J: separate projections, rotary embedding of interleaved pairs on part of each head."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.gptj.modeling_gptj import GPTJAttention, apply_rotary_pos_emb

from lmi.dist.adapters.patch import build_no_masks, merge_heads, replace_forward
from lmi.dist.attention import interface


def install(model: PreTrainedModel, positions: int) -> dict[str, Any]:
    """See `lmi.dist.adapters`."""
    replace_forward(model, GPTJAttention, _forward)
    build_no_masks(model)
    return {}


def _forward(
    module: Any, hidden_states: torch.Tensor, *_: Any, position_ids: torch.Tensor, **__: Any
) -> tuple[torch.Tensor, None]:
    heads = (module.num_attention_heads, module.head_dim)
    query = module.q_proj(hidden_states).unflatten(-1, heads)
    key = module.k_proj(hidden_states).unflatten(-1, heads)
    value = module.v_proj(hidden_states).unflatten(-1, heads)
    query, key = rotate(module, query, key, position_ids)
    out, _weights = interface(
        module, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    return module.out_proj(merge_heads(out)), None


def rotate(
    module: Any, query: torch.Tensor, key: torch.Tensor, position_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate the first `rotary_dim` numbers of each head of (1, tokens, heads, size)."""
    table = module.embed_positions.to(query.device)
    sin, cos = table[position_ids].to(key.dtype).chunk(2, dim=-1)
    size = module.rotary_dim or query.shape[-1]
    rotated = (
        torch.cat([apply_rotary_pos_emb(x[..., :size], sin, cos), x[..., size:]], dim=-1)
        for x in (query, key)
    )
    return next(rotated), next(rotated)
