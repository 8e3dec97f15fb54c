"""CodeGen: GPT-J's attention with one projection, laid out for four model-parallel parts."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import PreTrainedModel
from transformers.models.codegen.modeling_codegen import CodeGenAttention

from lmi.dist.adapters.gptj import rotate
from lmi.dist.adapters.patch import build_no_masks, merge_heads, replace_forward
from lmi.dist.attention import interface

PARTS: Final = 4  # the parts that every CodeGen checkpoint was trained in


def install(model: PreTrainedModel, positions: int) -> dict[str, Any]:
    """See `lmi.dist.adapters`."""
    replace_forward(model, CodeGenAttention, _forward)
    build_no_masks(model)
    return {}


def _forward(
    module: Any, hidden_states: torch.Tensor, *_: Any, position_ids: torch.Tensor, **__: Any
) -> tuple[torch.Tensor, None]:
    # Each part holds query, value, key (in this order) of its heads.
    fused = module.qkv_proj(hidden_states).unflatten(-1, (PARTS, 3, -1, module.head_dim))
    query, value, key = (x.flatten(2, 3) for x in fused.unbind(3))
    query, key = rotate(module, query, key, position_ids)
    out, _weights = interface(
        module, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    return module.out_proj(merge_heads(out)), None
