"""passport.json: what an artifact was made of, and how its files can be told from damaged ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NAME: Final = "passport.json"
# Looked at in each file, beside its size: all of a configuration, the names of a shard's tensors,
# and the end, which a write that was cut short lacks. A terabyte is checked in milliseconds.
_HEAD_BYTES: Final = 256 << 10
_TAIL_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Mark:
    """A file: its size in bytes, and SHA-256 of its beginning and its end."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Passport:
    """made_of: whatever decided the content. files: by name, all but the passport."""

    made_of: dict[str, Any]
    files: dict[str, Mark]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(mark.size for mark in self.files.values())


def issue(folder: Path, made_of: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write the passport of a folder that is complete, and everything in it to the disk.

    notes: for people who look into it. Raises OSError.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    files = {}
    for path in paths:
        _to_disk(path)
        mark = _mark(path)
        files[path.relative_to(folder).as_posix()] = {"size": mark.size, "digest": mark.digest}
    passport = folder / NAME
    content = {"made_of": dict(made_of), "notes": dict(notes), "files": files}
    passport.write_text(json.dumps(content, indent=2) + "\n")
    _to_disk(passport)
    for inside in {folder, *(path.parent for path in paths)}:
        _to_disk(inside)


def read(folder: Path) -> Passport | None:
    """The passport of a folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / NAME).read_bytes())
        files = {
            name: Mark(int(mark["size"]), str(mark["digest"]))
            for name, mark in found["files"].items()
        }
        return Passport(dict(found["made_of"]), files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # whatever is wrong with it, the artifact has none


def fault(folder: Path, made_of: Mapping[str, Any]) -> str | None:
    """What is wrong with an artifact that should be made of this; None where it is whole."""
    passport = read(folder)
    if passport is None:
        return f"{NAME} is missing or can't be read"
    if passport.made_of != json.loads(json.dumps(dict(made_of))):
        return f"{NAME} says that it was made of something else"
    for name, mark in passport.files.items():
        try:
            same = _mark(folder / name) == mark
        except OSError as error:
            return f"{name} can't be read: {error.strerror}"
        if not same:
            return f"{name} is not as it was written"
    return None


def _mark(path: Path) -> Mark:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
        if size > _HEAD_BYTES:
            file.seek(max(_HEAD_BYTES, size - _TAIL_BYTES))
            digest.update(file.read(_TAIL_BYTES))
    return Mark(size, digest.hexdigest())


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
