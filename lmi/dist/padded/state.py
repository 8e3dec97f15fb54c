"""A batch's state as transformers keeps it, whatever it is made of: its size, and fewer rows of it.

Attention caches, convolution and recurrent states, encoder outputs: nested containers of tensors
whose first dimension is the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, LinearAttentionCacheLayerMixin


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor of a nested state."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Cache | CacheLayerMixin | LinearAttentionCacheLayerMixin):
        yield from tensors_in(vars(value))


def size(value: Any) -> int:
    """Bytes of a nested state."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(value))


def can_select(value: Any, rows: int) -> bool:
    """Whether `select` knows each part of this state of `rows` rows."""
    if isinstance(value, torch.Tensor):
        return value.dim() > 0 and value.shape[0] == rows
    if isinstance(value, Mapping):
        return all(can_select(item, rows) for item in value.values())
    if isinstance(value, list | tuple):
        return all(can_select(item, rows) for item in value)
    return value is None or isinstance(value, Cache | bool | int | float | str)


def select(value: Any, kept: torch.Tensor) -> Any:
    """The state of the rows `kept` (int64) only. A Cache is changed in place."""
    if isinstance(value, torch.Tensor):
        return value.index_select(0, kept)
    if isinstance(value, Cache):
        value.reorder_cache(kept)
        return value
    if isinstance(value, Mapping):
        chosen = {key: select(item, kept) for key, item in value.items()}
        return type(value)(**chosen)
    if isinstance(value, list | tuple):
        return type(value)([select(item, kept) for item in value])
    return value
