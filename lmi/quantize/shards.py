"""Named tensors into a checkpoint's safetensors files, a shard at a time.

The folder is not whole until `finish` has returned: shards have other names before, which no loader
of checkpoints looks for. The files are written here and not by safetensors, whose errors don't
tell a full disk from another fault.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import torch

SHARD_BYTES: Final = 1 << 30  # held in memory before they are written
_ALIGNMENT: Final = 8  # bytes: where the numbers begin, by safetensors' format

# As safetensors spells them.
_DTYPES: Final = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}


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
        with path.open("wb") as file:
            file.write(_header(self._held))
            for tensor in self._held.values():
                # numpy has no bfloat16: the bytes alone.
                file.write(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
            file.flush()
            os.fsync(file.fileno())
        self._shards.append(path)
        self._held.clear()
        self._held_bytes = 0


def _header(tensors: dict[str, torch.Tensor]) -> bytes:
    """The size of the JSON that follows (8 bytes, little-endian), and the JSON: where each tensor's
    bytes lie."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
        start += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
