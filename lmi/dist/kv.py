"""The memory of the KV cache: per layer one tensor of keys and one of values, in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from lmi.dist.config import DistConfig
from lmi.dist.float8 import FLOAT8, narrow

_FLOAT8_GPU: Final = (8, 9)  # compute capability from which GPUs have instructions for e4m3


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps per token, as it was seen in a forward pass.

    kv_heads: heads of K and V (on this rank). key_size, value_size: numbers per head. key_scale,
    value_scale: what the numbers of an FP8 cache are multiplied by; of other caches 1.
    """

    kv_heads: int
    key_size: int
    value_size: int
    key_scale: float = 1.0
    value_scale: float = 1.0

    @property
    def numbers_per_token(self) -> int:
        """Numbers (not bytes) that a token takes in this layer."""
        return self.kv_heads * (self.key_size + self.value_size)


class LayerCache:
    """K and V of one layer.

    keys: (blocks, block size, KV heads, key size); values likewise. flat_keys, flat_values: the
    same memory as (slots, KV heads, size), slot = block * block size + offset. A row of the block
    view as (block size * KV heads * size) is what a gather copies. Numbers are e4m3 (FP8) or of the
    dtype that the model computes in; the former are K and V divided by the scales of the shape.
    """

    __slots__ = ("_moved", "flat_keys", "flat_values", "keys", "shape", "values")

    def __init__(
        self,
        shape: LayerShape,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.shape = shape
        # Zeros, not empty: a masked position still enters a product, and 0 * NaN is NaN. On a CPU
        # the pages are only taken from the system when they are first written.
        self.keys = torch.zeros(
            (blocks, block_size, shape.kv_heads, shape.key_size), dtype=dtype, device=device
        )
        self.values = torch.zeros(
            (blocks, block_size, shape.kv_heads, shape.value_size), dtype=dtype, device=device
        )
        self.flat_keys = self.keys.flatten(0, 1)
        self.flat_values = self.values.flatten(0, 1)
        # The blocks in a dtype whose rows torch can move: of e4m3 it knows too little.
        self._moved = [_movable(self.keys), _movable(self.values)]

    def write(
        self, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (tokens, KV heads, size) at slots (tokens); returns both as they will be read."""
        stored = (
            self._stored(key, self.shape.key_scale),
            self._stored(value, self.shape.value_scale),
        )
        for blocks, rows in zip(self._moved, stored, strict=True):
            blocks.flatten(0, 1).index_copy_(0, slots, _movable(rows))
        return (
            widened(stored[0], self.shape.key_scale, key.dtype),
            widened(stored[1], self.shape.value_scale, value.dtype),
        )

    def _stored(self, numbers: torch.Tensor, scale: float) -> torch.Tensor:
        if self.keys.dtype != FLOAT8:
            return numbers.to(self.keys.dtype)
        return narrow(numbers.float() * (1 / scale))

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy whole blocks. No block is in both."""
        for blocks in self._moved:
            blocks.index_copy_(0, targets, blocks.index_select(0, sources))

    def scrub(self, blocks: torch.Tensor) -> None:
        """Zero whole blocks, so that numbers that are not finite can't reach their next owner."""
        for moved in self._moved:
            moved.index_fill_(0, blocks, 0)


def cache_dtype(config: DistConfig, device: torch.device) -> torch.dtype | None:
    """The dtype of K and V where the configuration wants one of its own. Raises ConfigError where
    the device can't widen it."""
    if config.kv_cache_dtype == "auto":
        return None
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _FLOAT8_GPU:
        raise config.error(
            "kv_cache_dtype", "auto, or a GPU of compute capability 8.9 (Ada, Hopper) or above"
        )
    return FLOAT8


def widened(numbers: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Cached numbers as a model computes with them."""
    if numbers.dtype != FLOAT8:
        return numbers.to(dtype)
    return (numbers.to(torch.float32) * scale).to(dtype)


def _movable(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.view(torch.uint8) if numbers.dtype == FLOAT8 else numbers


class Workspace:
    """Memory that gathers write into, kept between layers and steps.

    A fresh buffer of this size is given back to the system and faulted in again each time, which
    costs more than the gather itself.
    """

    __slots__ = ("_buffers", "_device", "_dtype")

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self._buffers: dict[str, torch.Tensor] = {}

    def gather(
        self, name: str, source: torch.Tensor, rows: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        """source[rows] along dimension 0, valid until the next gather of the same name; of FP8,
        widened, times scale."""
        if source.dtype == FLOAT8:
            return widened(source.index_select(0, rows), scale, self._dtype)
        shape = (rows.numel(), *source.shape[1:])
        size = rows.numel() * source[0].numel()
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size + size // 4, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        out = buffer[:size].view(shape)
        return torch.index_select(source, 0, rows, out=out)
