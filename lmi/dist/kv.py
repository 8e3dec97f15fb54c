"""The memory of the KV cache: per layer one tensor of keys and one of values, in blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps per token, as it was seen in a forward pass.

    kv_heads: heads of K and V (on this rank). key_size, value_size: numbers per head.
    """

    kv_heads: int
    key_size: int
    value_size: int

    @property
    def numbers_per_token(self) -> int:
        """Numbers (not bytes) that a token takes in this layer."""
        return self.kv_heads * (self.key_size + self.value_size)


class LayerCache:
    """K and V of one layer.

    keys: (blocks, block size, KV heads, key size); values likewise. flat_keys, flat_values: the
    same memory as (slots, KV heads, size), slot = block * block size + offset. A row of the block
    view as (block size * KV heads * size) is what a gather copies.
    """

    __slots__ = ("flat_keys", "flat_values", "keys", "values")

    def __init__(
        self,
        shape: LayerShape,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
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

    def write(self, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store (tokens, KV heads, size) at slots (tokens)."""
        self.flat_keys.index_copy_(0, slots, key)
        self.flat_values.index_copy_(0, slots, value)

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy whole blocks. No block is in both."""
        self.keys.index_copy_(0, targets, self.keys.index_select(0, sources))
        self.values.index_copy_(0, targets, self.values.index_select(0, sources))

    def scrub(self, blocks: torch.Tensor) -> None:
        """Zero whole blocks, so that numbers that are not finite can't reach their next owner."""
        self.keys.index_fill_(0, blocks, 0)
        self.values.index_fill_(0, blocks, 0)


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

    def gather(self, name: str, source: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """source[rows] along dimension 0; valid until the next gather of the same name."""
        shape = (rows.numel(), *source.shape[1:])
        size = rows.numel() * source[0].numel()
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size + size // 4, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        out = buffer[:size].view(shape)
        return torch.index_select(source, 0, rows, out=out)
