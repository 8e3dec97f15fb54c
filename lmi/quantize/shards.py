"""Named tensors into a checkpoint's safetensors files, a shard at a time.

The folder is not whole until `finish` has returned: shards have other names before, which no loader
of checkpoints looks for.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

SHARD_BYTES: Final = 1 << 30  # held in memory before they are written


class ShardWriter:
    """Writes tensors to a folder in the order in which they come. Raises OSError of the disk."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._limit = shard_bytes
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = 0
        self._homes: dict[str, int] = {}
        self._shards: list[Path] = []
        self.total_bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take one tensor, from any device. Raises ValueError for a name that came before."""
        if name in self._homes:
            raise ValueError(f"{name} was written before")
        if self._held and self._held_bytes + tensor.nbytes > self._limit:
            self._write()
        self._homes[name] = len(self._shards)
        self._held[name] = tensor.cpu().contiguous()
        self._held_bytes += tensor.nbytes
        self.total_bytes += tensor.nbytes

    def finish(self) -> list[str]:
        """Write what is held, give the shards their names and return these, the index last."""
        if self._held or not self._shards:
            self._write()
        count = len(self._shards)
        names = [
            "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
            for number in range(1, count + 1)
        ]
        for shard, name in zip(self._shards, names, strict=True):
            os.replace(shard, self._folder / name)
        if count > 1:
            index = {
                "metadata": {"total_size": self.total_bytes},
                "weight_map": {name: names[home] for name, home in sorted(self._homes.items())},
            }
            names.append("model.safetensors.index.json")
            (self._folder / names[-1]).write_text(json.dumps(index, indent=2) + "\n")
        return names

    def _write(self) -> None:
        path = self._folder / f"shard-{len(self._shards):05d}.partial"
        save_file(self._held, path, metadata={"format": "pt"})
        _to_disk(path)
        self._shards.append(path)
        self._held.clear()
        self._held_bytes = 0


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
