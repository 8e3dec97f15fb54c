"""Cache: a folder by what it is made of, from the disk or made now.

A key is the SHA-256 of everything that decides the content, so nothing is ever brought up to date:
what was made of something else has another name. The rule to keep: nothing is written under an
artifact's name but by one rename of a folder that is complete, passport and all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError
from lmi.quantize.cache import locks, passport, room

LIMIT_BYTES: Final = 256 << 30  # a few large models; a cache must not fill a disk unseen
_KEY_DIGITS: Final = 24  # of the SHA-256: no two keys meet by chance

Progress = Callable[[str, int, int], None]

log = logging.getLogger(__name__)

_ADVICE: Final = {
    errno.ENOSPC: "free space there or name another cache",
    errno.EDQUOT: "free space there or name another cache",
    errno.EACCES: "it must be writable by this user",
    errno.EPERM: "it must be writable by this user",
    errno.EROFS: "name a cache that is writable",
    errno.ENOTDIR: "name a folder",
}


class Cache:
    """Artifacts in one folder. Several processes may share it."""

    def __init__(self, root: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._root = root
        self._limit = limit_bytes

    def folder(
        self,
        kind: str,
        made_of: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        notes: Mapping[str, Any],
        need_bytes: int,
        progress: Progress,
    ) -> Path:
        """The artifact that is made of this: found whole, or made by `make` in an empty folder.

        kind: what its name begins with (lower-case letters, digits, _). made_of: JSON values;
        everything that decides the content, the maker's own version too. notes: JSON values that
        decide nothing, for people who look into passport.json. need_bytes: about what
        it takes on the disk. The folder is not to be written to, and stays until this process ends.
        Raises ModelError, also for a disk that is full or can't be written to.
        """
        name = f"{kind}-{_key(kind, made_of)}"
        final = self._root / name
        with _disk_errors(self._root):
            if self._have(name, made_of):
                return final
            with locks.made_alone(
                self._root,
                name,
                lambda: progress(f"waiting for another process that makes {name}", 0, 0),
            ):
                if self._have(name, made_of):
                    return final
                self._clear(name, made_of)
                room.make_room(self._root, need_bytes)
                self._make(name, make, lambda stage: passport.issue(stage, made_of, notes))
                locks.use(self._root, name)
            room.prune(self._root, self._limit)
        return final

    def _have(self, name: str, made_of: Mapping[str, Any]) -> bool:
        """Whether the artifact is there, whole; if so it is in use from now on."""
        final = self._root / name
        if not final.is_dir():
            return False
        locks.use(self._root, name)
        if passport.fault(final, made_of) is not None:
            locks.release(self._root, name)
            return False
        with contextlib.suppress(OSError):  # a cache may be read-only; then nothing is pruned
            os.utime(final)
        return True

    def _clear(self, name: str, made_of: Mapping[str, Any]) -> None:
        """Remove a damaged artifact of this name, and what killed processes left."""
        final = self._root / name
        if final.is_dir():
            what = passport.fault(final, made_of)
            if not room.remove(self._root, name):
                raise ModelError(
                    f"{final} is damaged ({what}) and in use by another process: end that one and "
                    "start again"
                )
            log.warning("%s was damaged (%s): it is made again", final, what)
        room.sweep(self._root)

    def _make(self, name: str, make: Callable[[Path], None], issue: Callable[[Path], None]) -> None:
        stage = self._root / f"{room.PARTIAL}{name}"
        shutil.rmtree(stage, ignore_errors=True)  # ours from before: nobody else makes this
        stage.mkdir()
        try:
            make(stage)
            issue(stage)
            os.rename(stage, self._root / name)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise


def _key(kind: str, made_of: Mapping[str, Any]) -> str:
    text = json.dumps([kind, dict(made_of)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn an OSError of this machine's disk into a ModelError that names the path."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        reason = error.strerror or type(error).__name__
        raise ModelError(
            f"can't keep what is made of the model: {error.filename or root}: {reason}"
            f"{f'; {advice}' if advice else ''}"
        ) from error
