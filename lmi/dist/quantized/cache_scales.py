"""Scales of an FP8 cache of K and V, as checkpoints hold them."""

from __future__ import annotations

from typing import Final

import torch

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint

# Below an attention layer, as compressed-tensors, TensorRT Model Optimizer and AutoFP8 have them.
_KEY_NAMES: Final = ("k_scale", "k_proj.k_scale", "k_proj.output_scale", "kv_scale")
_VALUE_NAMES: Final = ("v_scale", "v_proj.v_scale", "v_proj.output_scale", "kv_scale")

CACHE_SCALES: Final = tuple(
    f".{name.rpartition('.')[2]}" for name in dict.fromkeys((*_KEY_NAMES, *_VALUE_NAMES))
)
"""How the names of these tensors end."""


def read_cache_scales(checkpoint: Checkpoint, attention: str) -> tuple[float, float]:
    """What cached K and V of a layer are multiplied by; 1 where the checkpoint does not say.

    attention: the layer's name. Raises ModelError for a scale that is no finite number above 0.
    """
    return _one_of(checkpoint, attention, _KEY_NAMES), _one_of(checkpoint, attention, _VALUE_NAMES)


def _one_of(checkpoint: Checkpoint, attention: str, names: tuple[str, ...]) -> float:
    found = 1.0
    for name in names:
        tensor = f"{attention}.{name}"
        if tensor not in checkpoint:
            continue
        scale = checkpoint.take(tensor)
        one = scale.numel() == 1 and scale.is_floating_point()
        if not one or not 0 < float(scale) < torch.inf:
            raise ModelError(
                f"{checkpoint.where(tensor)}: {tensor} is no scale of a cache: expected one finite "
                "number above 0"
            )
        found = float(scale)
    return found
