"""Where a checkpoint is made: beside its place, a layer at a time, so that a killed run goes on.

    .NAME.quantize/
        lock            held by the run that writes
        KEY/            one for each model, settings and calibration text
            made-of.txt
            0000/       a finished layer: model.safetensors, report.json
            files/      the checkpoint that is put together of them

The rule to keep: a layer's folder gets its name when all in it is on the disk, and the checkpoint's
likewise.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from lmi.core import BuildError

_LAYER: Final = "model.safetensors"
_REPORT: Final = "report.json"
_MADE_OF: Final = "made-of.txt"


class Work:
    """The finished layers of one run's settings. Made by `open_work`."""

    def __init__(self, folder: Path, others: tuple[str, ...]) -> None:
        """others: what other settings left behind, for people."""
        self._folder = folder
        self.others = others

    def finished(self, index: int) -> dict[str, Any] | None:
        """The report of a finished layer; None where it is not finished."""
        path = self.layer_folder(index) / _REPORT
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def layer_folder(self, index: int) -> Path:
        """Where a finished layer's tensors are."""
        return self._folder / f"{index:04d}"

    def begin(self, index: int, tensors: Mapping[str, torch.Tensor]) -> Path:
        """Write a layer's tensors to a folder that is not a finished layer yet."""
        folder = self._partial(index)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        save_file(dict(tensors), folder / _LAYER, metadata={"format": "pt"})
        to_disk(folder / _LAYER)
        return folder

    def finish(self, index: int, report: Mapping[str, Any]) -> None:
        """What `begin` wrote is a finished layer, with this report."""
        folder = self._partial(index)
        path = folder / _REPORT
        path.write_text(json.dumps(report))
        to_disk(path)
        to_disk(folder)
        os.rename(folder, self.layer_folder(index))
        to_disk(self._folder)

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoint is put together."""
        return self._folder / "files"

    def new_checkpoint_folder(self) -> Path:
        """The same, empty."""
        folder = self.checkpoint_folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def publish(self, output: Path) -> None:
        """Give the checkpoint its place, and drop the layers."""
        files = self.checkpoint_folder
        for path in files.iterdir():
            to_disk(path)
        to_disk(files)
        os.rename(files, output)
        to_disk(output.parent)
        shutil.rmtree(self._folder)
        if not self.others:
            shutil.rmtree(self._folder.parent)

    def _partial(self, index: int) -> Path:
        return self._folder / f"{index:04d}.partial"


@contextmanager
def open_work(output: Path, key: str, made_of: str) -> Iterator[Work]:
    """The work for the checkpoint `output`, held by one process.

    key: of model, settings and calibration text; layers that were made with the same are used.
    made_of: the same for people. Raises BuildError: the output is there, or another run writes it.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BuildError(f"{output} is there already: name a new folder, or remove it first")
    root = output.parent / f".{output.name}.quantize"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(
                f"another run writes {output} ({root / 'lock'} is held): wait for it, or name "
                "another folder"
            ) from None
        folder = root / key
        folder.mkdir(exist_ok=True)
        (folder / _MADE_OF).write_text(made_of + "\n")
        yield Work(folder, tuple(_others(root, folder)))


def _others(root: Path, own: Path) -> Iterator[str]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path != own):
        told = folder / _MADE_OF
        yield f"{folder} ({told.read_text().strip() if told.is_file() else 'unknown'})"


def to_disk(path: Path) -> None:
    """Have the kernel write a file, or a folder's names, before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
