"""The folder in which the ranks of a job find each other, and what killed fronts left of theirs.

A front that is killed can't tidy up. So it holds a lock on its folder for as long as it lives, and
whoever makes the next one removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

_PREFIX: Final = "lmi-job-"
# In memory, where there is such a folder: a container's other ones may be read-only.
_SHARED_MEMORY: Final = Path("/dev/shm")
# A folder younger than this may just have been made, and not be locked yet.
_YOUNG_SECONDS: Final = 60.0


class JobFolder:
    """An empty folder of one job alone, which `close` removes."""

    def __init__(self, parent: Path | None = None, young: float = _YOUNG_SECONDS) -> None:
        """Make it in `parent`, by default in memory; remove what is left there of dead jobs."""
        if parent is None:
            writable = os.access(_SHARED_MEMORY, os.W_OK)
            parent = _SHARED_MEMORY if writable else Path(tempfile.gettempdir())
        _sweep(parent, young)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock: int | None = _locked(self.path)

    def close(self) -> None:
        """Remove it. Idempotent."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def _sweep(parent: Path, young: float) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            found = folder.stat()
        except FileNotFoundError:  # its front was quicker
            continue
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < young:
            continue
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder; None where another process holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
