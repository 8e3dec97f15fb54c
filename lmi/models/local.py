"""Models in folders of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lmi.core import ModelError
from lmi.models.placing import Stage, disk_errors, need_space
from lmi.models.source import LocalModel, Progress, StoredFile


class LocalSource:
    """A folder, used where it is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def files(self) -> tuple[StoredFile, ...]:
        with disk_errors("read", self._path):
            found = [
                StoredFile(path.relative_to(self._path).as_posix(), path.stat().st_size)
                for path in _walk(self._path)
            ]
        return tuple(sorted(found, key=lambda file: file.name))

    def read(self, file: StoredFile, start: int, length: int) -> bytes:
        path = self._path / file.name
        with disk_errors("read", path), path.open("rb") as opened:
            opened.seek(start)
            return opened.read(length)

    def fetch(self, progress: Progress) -> LocalModel:
        return LocalModel(self._path, None, tuple(file.name for file in self.files()))


def put_local(folder: Path, target: Path, progress: Progress) -> None:
    """Copy a folder to a new one. Raises ModelError if `target` is there and not empty."""
    source = LocalSource(folder)
    files = source.files()
    total = sum(file.size for file in files)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} is there already: name a new folder, or remove it first")
    with disk_errors("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        need_space(target.parent, total)
        stage = Stage(target.parent / f".{target.name}.{os.getpid()}.partial")
        done = 0
        for file in files:
            progress("copying the model", done, total)
            shutil.copyfile(folder / file.name, stage.incoming / "file")
            stage.finish(stage.incoming / "file", file.name)
            done += file.size
        progress("copying the model", total, total)
        stage.become(target)


def _walk(root: Path) -> Iterator[Path]:
    """All files, but for hidden folders such as `.git` and `.cache`."""
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _raise(error: OSError) -> None:
    raise error
