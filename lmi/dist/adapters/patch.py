"""What the adapters share: replacing a module's forward, and masks that nobody builds."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel

from lmi.dist.attention import ATTENTION_NAME


def replace_forward(
    model: PreTrainedModel, kind: type[torch.nn.Module], forward: Callable[..., Any]
) -> None:
    """Give every module of class `kind` another forward."""
    for module in model.modules():
        if isinstance(module, kind):
            module.forward = MethodType(forward, module)


def build_no_masks(model: PreTrainedModel) -> None:
    """Make transformers' mask building return at once: it knows no masks for our name.

    These classes refuse `set_attn_implementation`, which only changes this same attribute.
    """
    model.config._attn_implementation = ATTENTION_NAME


def merge_heads(out: torch.Tensor) -> torch.Tensor:
    """(1, tokens, heads, size) -> (1, tokens, heads * size)."""
    return out.flatten(2)
