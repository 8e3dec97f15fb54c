"""Folders appear whole or not at all: filled under another name, then renamed.

One process at a time fills a folder; others wait for it and find it done. What a killed one left
is found by the next under the same name, with every finished file in it. The rule to keep: nothing
is ever written under the final name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmi.core import ModelError
from lmi.models.source import Progress

LOCK_TIMEOUT_SECONDS = 6 * 3600.0  # longer than any download that still makes sense to wait for
LOCK_POLL_SECONDS = 0.5  # flock has no time-out of its own
_ADVICE = {
    errno.ENOSPC: "free space there or name another cache",
    errno.EDQUOT: "free space there or name another cache",
    errno.EACCES: "it must be writable by this user",
    errno.EPERM: "it must be writable by this user",
    errno.EROFS: "name a cache that is writable",
    errno.ENAMETOOLONG: "shorten the name where it comes from",
}


class Stage:
    """A folder being filled. `files` becomes the final folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files = root / "files"
        self.incoming = root / "incoming"
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.files.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir()

    def has(self, name: str, size: int) -> bool:
        """Whether the file is there, whole: only whole ones get their name."""
        path = self.files / name
        return path.is_file() and path.stat().st_size == size

    def finish(self, incoming: Path, name: str) -> None:
        """Give a whole file of `incoming` its name."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(incoming, path)

    def become(self, final: Path) -> None:
        """Give the folder its final name, where nothing or an empty folder may be."""
        os.rename(self.files, final)
        shutil.rmtree(self._root)


def place(final: Path, fill: Callable[[Stage], None], progress: Progress) -> None:
    """Make the folder `final` by `fill`, unless it is there. Raises ModelError."""
    with disk_errors("write", final):
        if final.is_dir():
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        with _lock(final.parent / f".{final.name}.lock", progress):
            if final.is_dir():
                return
            stage = Stage(final.parent / f".{final.name}.partial")
            fill(stage)
            stage.become(final)


def need_space(folder: Path, size: int) -> None:
    """Raise ModelError if `folder`'s file system has less than `size` bytes free."""
    with disk_errors("look at", folder):
        free = shutil.disk_usage(folder).free
    if free < size:
        raise ModelError(
            f"{folder} has {free / 1e9:.1f} GB free and the model needs {size / 1e9:.1f} GB: "
            "free space there or name another cache"
        )


@contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError of this machine's disk into a ModelError that names the path."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        advice = _ADVICE.get(error.errno or 0)
        reason = error.strerror or type(error).__name__
        raise ModelError(
            f"can't {doing} {where}: {reason}{f'; {advice}' if advice else ''}"
        ) from error


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an advisory lock; the kernel releases it when its process ends, however it ends."""
    with path.open("a") as file:
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for another process that fetches the model", 0, 0)
            if time.monotonic() > deadline:
                raise ModelError(
                    f"another process has held {path} for {LOCK_TIMEOUT_SECONDS / 3600:.0f} hours: "
                    "end it and start again"
                )
            time.sleep(LOCK_POLL_SECONDS)
        yield
