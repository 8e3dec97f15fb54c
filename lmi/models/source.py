"""What every place that holds models offers: a listing, a part of a file, all of it as a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Reports (phase, bytes done, bytes in all) from any thread; 0 in all: the end is not known.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a model. name: relative, with `/`, never outside its folder. size: in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that is on this machine, complete.

    path: its folder; not to be written to, other processes may read it. revision: what fixes its
    content: the commit of a hub model, a digest of the listing of one from S3, None for a folder.
    files: names relative to `path`, sorted.
    """

    path: Path
    revision: str | None
    files: tuple[str, ...]


class Source(Protocol):
    """One model in one place. Every method raises ModelError."""

    def files(self) -> tuple[StoredFile, ...]:
        """The files that `fetch` would bring, sorted by name."""

    def read(self, file: StoredFile, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer where the file ends. Downloads nothing else."""

    def fetch(self, progress: Progress) -> LocalModel:
        """The whole model as a folder of this machine."""
