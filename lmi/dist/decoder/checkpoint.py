"""The safetensors files of a model folder as one set of named tensors, each taken once.

Only the rows or columns that a rank needs are read. What nobody took is asked for at the end: a
tensor left over means a layer that the decoder does not compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lmi.core import ModelError
from lmi.dist.decoder.config import read_json


class Checkpoint:
    """Reads tensors by name; a context manager. Raises ModelError, naming file and tensor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._homes: dict[str, tuple[Path, Any]] = {}
        self._taken: set[str] = set()
        paths = _files(folder)
        self.total_bytes = sum(path.stat().st_size for path in paths)
        self.bytes_read = 0
        for path in paths:
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                names = list(file.keys())
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} can't be read: {error}") from error
            for name in names:
                if name in self._homes:
                    raise ModelError(f"{path}: {name} is in {self._homes[name][0].name} too")
                self._homes[name] = (path, file)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    def names(self) -> Iterator[str]:
        """Every tensor's name."""
        return iter(self._homes)

    def where(self, name: str) -> str:
        """The file of a tensor, for messages."""
        return str(self._homes[name][0]) if name in self._homes else str(self._folder)

    def where_layer(self, name: str) -> str:
        """The file of a layer's first tensor, for messages."""
        return next(
            (str(path) for tensor, (path, _) in self._homes.items() if tensor.startswith(name)),
            str(self._folder),
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        _, file = self._home(name)
        return tuple(file.get_slice(name).get_shape())

    def dtype_name(self, name: str) -> str:
        """A tensor's dtype as safetensors spells it (F32, BF16, I8), without reading it."""
        _, file = self._home(name)
        found: str = file.get_slice(name).get_dtype()
        return found

    def take(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        *,
        part: tuple[int, int, int] | None = None,
    ) -> torch.Tensor:
        """Read a tensor. shape: what the whole of it must have, where that is known.

        part: (dimension, start, stop) of what is read of it.
        """
        path, file = self._home(name)
        view = file.get_slice(name)
        found = tuple(view.get_shape())
        if shape is not None and found != shape:
            raise ModelError(f"{path}: {name} has the shape {found}, config.json says {shape}")
        try:
            if part is None:
                tensor = file.get_tensor(name)
            else:
                dimension, start, stop = part
                index = (*[slice(None)] * dimension, slice(start, stop))
                tensor = view[index]
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: {name} can't be read: {error}") from error
        self._taken.add(name)
        self.bytes_read += tensor.nbytes
        result: torch.Tensor = tensor
        return result

    def left_over(self, ignored: Iterable[str] = ()) -> list[str]:
        """Names that nobody took and that do not end with one of `ignored`."""
        endings = tuple(ignored)
        return sorted(
            name for name in self._homes if name not in self._taken and not name.endswith(endings)
        )

    def _home(self, name: str) -> tuple[Path, Any]:
        home = self._homes.get(name)
        if home is None:
            raise ModelError(f"{self._folder}: the checkpoint lacks the tensor {name}")
        return home


def _files(folder: Path) -> list[Path]:
    """The files of the checkpoint: a folder may hold a second one in its maker's own layout."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        homes = read_json(index).get("weight_map")
        if not isinstance(homes, dict) or not homes:
            raise ModelError(f"{index} has no weight_map")
        names = sorted(set(homes.values()))
        bad = [n for n in names if not isinstance(n, str) or Path(n).name != n]
        if bad:
            raise ModelError(f"{index} names the file {bad[0]!r}: expected one in its own folder")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelError(f"{folder}: {missing[0]} is missing, which {index.name} names")
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ModelError(_nothing_to_read(folder))
    return paths


def _nothing_to_read(folder: Path) -> str:
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        return (
            f"{folder}: {pickles[0]} is a pickle, which can run code when it is read; convert the "
            "checkpoint to safetensors (load it where you trust it, then save_pretrained)"
        )
    return f"{folder}: no *.safetensors file there"
