"""What identifies a model's content: SHA-256 of its files, each read once and then remembered.

Sizes and times don't tell two fine-tunings of one model apart, or a copy from its original; only
the content does. Reading it costs a minute for 100 GB, so the digests are kept beside the
artifacts, and hold for as long as a file's inode, size and times are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from lmi.core import ModelError

FOLDER: Final = ".digests"
PHASE: Final = "comparing the model with what the cache was made of"
_THREADS: Final = 4  # hashing releases the interpreter; more would only fight for the disk

Progress = Callable[[str, int, int], None]
Stamp = list[int]


def fingerprint(
    folder: Path, names: Iterable[str], root: Path, progress: Progress
) -> dict[str, str]:
    """SHA-256 of each of these files of `folder`, by name. root: the cache, where they are noted.

    progress is told bytes, and only where something must be read. Raises ModelError for a file
    that can't be read.
    """
    paths = {name: folder / name for name in names}
    try:
        stamps = {name: _stamp(path) for name, path in paths.items()}
        known = _remembered(root, folder)
        found = {
            name: digest
            for name, (stamp, digest) in known.items()
            if name in stamps and stamps[name] == stamp
        }
        missing = [name for name in paths if name not in found]
        if missing:
            found |= _digests({name: paths[name] for name in missing}, progress)
            # A file that was written to meanwhile gets a stamp that it no longer has.
            _remember(root, folder, {name: (stamps[name], found[name]) for name in paths})
    except OSError as error:
        raise ModelError(f"{error.filename} can't be read: {error.strerror}") from error
    return {name: found[name] for name in sorted(paths)}


def _digests(paths: dict[str, Path], progress: Progress) -> dict[str, str]:
    total, done = sum(path.stat().st_size for path in paths.values()), 0
    progress(PHASE, 0, total)
    found = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, digest in zip(paths, pool.map(_digest, paths.values()), strict=True):
            found[name] = digest
            done += paths[name].stat().st_size
            progress(PHASE, done, total)
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,  # a time-stamp can be set back; this one can't
    ]


def _note(root: Path, folder: Path) -> Path:
    return root / FOLDER / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()


def _remembered(root: Path, folder: Path) -> dict[str, tuple[Stamp, str]]:
    try:
        found = json.loads(_note(root, folder).read_bytes())
        return {str(name): (list(stamp), str(digest)) for name, (stamp, digest) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # nothing noted that can be read: the files are


def _remember(root: Path, folder: Path, digests: dict[str, tuple[Stamp, str]]) -> None:
    note = _note(root, folder)
    temporary = note.with_name(f"{note.name}.{os.getpid()}.partial")
    # A cache that can't be written to only costs the next start the same reading.
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(digests))
        os.replace(temporary, note)
