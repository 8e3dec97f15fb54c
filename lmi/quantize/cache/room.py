"""A bound on a cache's disk: the least recently used artifacts go first, never one in use.

Only folders with an artifact's name are touched: a user may have named a folder that holds other
things as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lmi.core import ModelError
from lmi.quantize.cache import locks, passport

PARTIAL: Final = ".partial-"
_TRASH: Final = ".trash-"
_NAME: Final = re.compile(r"[a-z0-9_]+-[0-9a-f]{24}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """An artifact on the disk. used: when it was last asked for, in nanoseconds."""

    name: str
    size: int
    used: int


def sweep(root: Path) -> None:
    """Remove what killed processes left half made, or half removed."""
    for path in root.glob(f"{_TRASH}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in root.glob(f"{PARTIAL}*"):
        with locks.not_being_made(root, path.name.removeprefix(PARTIAL)) as ours:
            if ours:
                shutil.rmtree(path, ignore_errors=True)


def remove(root: Path, name: str) -> bool:
    """Remove an artifact unless it is in use; whether it is gone."""
    with locks.unused(root, name) as ours:
        if not ours:
            return False
        trash = root / f"{_TRASH}{name}-{os.getpid()}"
        # Renamed first, so that a removal cut short leaves nothing under an artifact's name.
        with contextlib.suppress(FileNotFoundError):
            os.rename(root / name, trash)
        shutil.rmtree(trash, ignore_errors=True)
        return True


def prune(root: Path, limit_bytes: int) -> None:
    """Remove the least recently used until all together are within the limit, if that can be."""
    kept = list(_oldest_first(root))
    excess = sum(artifact.size for artifact in kept) - limit_bytes
    for artifact in kept:
        if excess <= 0:
            return
        if remove(root, artifact.name):
            log.info("removed %s, the least recently used, from %s", artifact.name, root)
            excess -= artifact.size


def make_room(root: Path, need_bytes: int) -> None:
    """Remove the least recently used until so much is free on the disk.

    Raises ModelError where that is not enough, OSError.
    """
    if shutil.disk_usage(root).free >= need_bytes:
        return
    for artifact in _oldest_first(root):
        if remove(root, artifact.name):
            log.info("removed %s, the least recently used, from %s", artifact.name, root)
        if shutil.disk_usage(root).free >= need_bytes:
            return
    free = shutil.disk_usage(root).free
    raise ModelError(
        f"{root} has {free / 1e9:.1f} GB free and about {need_bytes / 1e9:.1f} GB are needed: free "
        "space there or name another cache"
    )


def _oldest_first(root: Path) -> Iterator[Kept]:
    found = []
    for path in root.iterdir():
        if not _NAME.fullmatch(path.name) or not path.is_dir():
            continue
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            known = passport.read(path)
            # What has no passport is worth nothing: it goes first.
            used = path.stat().st_mtime_ns if known else 0
            found.append(Kept(path.name, known.size if known else _measured(path), used))
    return iter(sorted(found, key=lambda artifact: artifact.used))


def _measured(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
