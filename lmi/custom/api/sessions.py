"""State that a client's requests share: one folder for each session, known to all workers.

A session's values are MessagePack, its arrays memory-mapped files. Nothing is unpickled: the folder
is shared, and whoever can write there would run code in every worker. Values are what MessagePack
can say: texts, bytes, numbers, lists and dictionaries of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import numpy as np

_SHARED_MEMORY: Final = Path("/dev/shm")
_FOLDER: Final = "djl_sessions"
_EXPIRATION: Final = 1200.0  # seconds
_EXPIRES: Final = ".expires"  # the file that holds the time
_NEW: Final = "NEW_SESSION"


class Session:
    """One session. session_id: a UUID. files_path: its folder. expiration_ts: its end, as seconds
    since 1970."""

    def __init__(self, session_id: str, files_path: str | Path, expiration_ts: float) -> None:
        self.session_id = session_id
        self.files_path = str(files_path)
        self.expiration_ts = expiration_ts

    def put(self, key: str, obj: Any) -> None:
        """Keep a value. Raises TypeError for one that MessagePack can't say."""
        try:
            encoded = msgspec.msgpack.encode(obj)
        except (TypeError, OverflowError) as error:
            raise TypeError(
                f"a session can't keep a value of type {type(obj).__name__} ({error}): "
                "use texts, bytes, numbers, lists and dictionaries, or get_as_numpy"
            ) from error
        path = self._path(key)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_bytes(encoded)
        partial.replace(path)  # another worker reads the old value or the new one

    def get(self, key: str, default: Any = None) -> Any:
        """A value that was kept, or the default."""
        try:
            return msgspec.msgpack.decode(self._path(key).read_bytes())
        except FileNotFoundError:
            return default

    def get_as_numpy(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: Any = "float32",
        create: bool = False,
    ) -> np.ndarray[Any, Any]:
        """An array that lives in the session: what is written to it is there for all workers.

        Raises FileNotFoundError for one that was not created, ValueError for another size.
        """
        import numpy as np

        path = self._path(key)
        if not create and not path.is_file():
            raise FileNotFoundError(f"session {self.session_id} has no array {key!r}: create=True")
        return np.memmap(path, dtype, mode="w+" if create else "r+", shape=shape)

    def remove(self) -> None:
        """Delete everything that the session holds."""
        shutil.rmtree(self.files_path, ignore_errors=True)

    def _path(self, key: str) -> Path:
        name = key.replace("/", "-")
        if name in ("", ".", "..", _EXPIRES):
            raise ValueError(f"{key!r} can't be a key of a session")
        return Path(self.files_path, name)


class SessionManager:
    """All sessions of a model.

    properties: sessions_path (by default a folder in shared memory, else among temporary files) and
    sessions_expiration, in seconds. Raises ValueError for sessions_s3url, which is not supported.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        if properties.get("sessions_s3url"):
            raise ValueError("sessions_s3url is not supported: sessions are kept in sessions_path")
        self.expiration = float(properties.get("sessions_expiration", _EXPIRATION))
        shared = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
        self.sessions_path = str(properties.get("sessions_path") or shared / _FOLDER)
        Path(self.sessions_path).mkdir(parents=True, exist_ok=True, mode=0o700)

    def create_session(self) -> Session:
        """A new session. Those that have expired are removed."""
        self._clean_expired()
        session_id = str(uuid.uuid4())
        session = Session(
            session_id, Path(self.sessions_path, session_id), time.time() + self.expiration
        )
        Path(session.files_path).mkdir(mode=0o700)
        Path(session.files_path, _EXPIRES).write_text(repr(session.expiration_ts))
        return session

    def get_session(self, session_id: str | None) -> Session | None:
        """The session of this id; None for no id, for `NEW_SESSION`, and for one that has expired.

        Raises ValueError for an id that is unknown.
        """
        if not session_id or session_id == _NEW:
            return None
        folder = self._folder(session_id)
        expires = _expires(folder) if folder is not None else None
        if folder is None or expires is None:
            raise ValueError(f"session {session_id!r} is unknown")
        session = Session(session_id, folder, expires)
        if expires < time.time():
            session.remove()
            return None
        return session

    def close_session(self, session_id: str | None) -> None:
        """Remove a session. Raises ValueError for an id that is unknown."""
        session = self.get_session(session_id)
        if session is not None:
            session.remove()

    def _folder(self, session_id: str) -> Path | None:
        """Its folder, if the id is one that we give: a client's text is no path."""
        try:
            known = str(uuid.UUID(session_id)) == session_id
        except ValueError:
            return None
        return Path(self.sessions_path, session_id) if known else None

    def _clean_expired(self) -> None:
        for folder in Path(self.sessions_path).iterdir():
            expires = _expires(folder)
            if expires is not None and expires < time.time():
                shutil.rmtree(folder, ignore_errors=True)


def _expires(folder: Path) -> float | None:
    """When a session ends; None where there is none."""
    try:
        return float((folder / _EXPIRES).read_text())
    except (OSError, ValueError):
        return None
