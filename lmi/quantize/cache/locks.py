"""Locks on an artifact between processes; the kernel releases them however a process ends.

Two for each: "make" is held by the one process that fills it, "use" is shared by all that have it,
and held alone by one that removes it. The files stay for ever, for a lock file that is removed can
be held twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from lmi.core import ModelError

POLL_SECONDS: Final = 0.2  # flock has no time-out of its own
USE_SECONDS: Final = 60.0  # removing an artifact takes less
MAKE_SECONDS: Final = 24 * 3600.0  # longer than quantising anything that fits a machine
FOLDER: Final = ".locks"

_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)

# Of artifacts that this process uses, for as long as it lives.
_in_use: dict[Path, int] = {}


def use(root: Path, name: str) -> None:
    """Keep the artifact from being removed until this process ends. Raises ModelError after a
    minute in which another process would not let go of it."""
    path = _path(root, name, "use")
    if path in _in_use:
        return
    descriptor = _open(path)
    if descriptor is None:
        return  # a cache that can't be written to is not pruned either
    if not _wait(descriptor, fcntl.LOCK_SH, USE_SECONDS, lambda: None):
        os.close(descriptor)
        raise ModelError(f"another process has held {path} for {USE_SECONDS:.0f} s: end it")
    _in_use[path] = descriptor


def release(root: Path, name: str) -> None:
    """Take `use` back."""
    descriptor = _in_use.pop(_path(root, name, "use"), None)
    if descriptor is not None:
        os.close(descriptor)


def unused(root: Path, name: str) -> AbstractContextManager[bool]:
    """Whether nobody uses the artifact; if so, nobody begins to in the meantime."""
    return _free(_path(root, name, "use"))


@contextmanager
def made_alone(root: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only one that makes this artifact. waiting: called now and then while another does.

    Raises OSError where no lock can be had, ModelError after a day.
    """
    path = _path(root, name, "make")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not _wait(descriptor, fcntl.LOCK_EX, MAKE_SECONDS, waiting):
            raise ModelError(
                f"another process has held {path} for {MAKE_SECONDS / 3600:.0f} hours: end it and "
                "start again"
            )
        yield
    finally:
        os.close(descriptor)


def not_being_made(root: Path, name: str) -> AbstractContextManager[bool]:
    """Whether nobody makes the artifact; if so, nobody begins to in the meantime."""
    return _free(_path(root, name, "make"))


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    descriptor = _open(path)
    if descriptor is None:
        yield False
        return
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _path(root: Path, name: str, kind: str) -> Path:
    return root / FOLDER / f"{name}.{kind}"


def _open(path: Path) -> int | None:
    """For locking; None where the file is not there and can't be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
    with contextlib.suppress(FileNotFoundError, PermissionError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _wait(descriptor: int, kind: int, seconds: float, waiting: Callable[[], None]) -> bool:
    deadline = time.monotonic() + seconds
    while not _try(descriptor, kind):
        if time.monotonic() > deadline:
            return False
        waiting()
        time.sleep(POLL_SECONDS)
    return True


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
