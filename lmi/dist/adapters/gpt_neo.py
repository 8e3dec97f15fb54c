"""GPT-Neo: unscaled scores; every other layer looks through a window ("local")."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from lmi.dist.adapters.patch import build_no_masks, merge_heads, replace_forward
from lmi.dist.attention import interface


def install(model: PreTrainedModel, positions: int) -> dict[str, Any]:
    """See `lmi.dist.adapters`."""
    replace_forward(model, GPTNeoSelfAttention, _forward)
    build_no_masks(model)
    return {}


def _forward(
    module: Any, hidden_states: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    heads = (module.num_heads, module.head_dim)
    query, key, value = (
        projection(hidden_states).unflatten(-1, heads).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    window = module.config.window_size if module.attention_type == "local" else None
    out, _weights = interface(module, query, key, value, scaling=1.0, sliding_window=window)
    return module.out_proj(merge_heads(out)), None
