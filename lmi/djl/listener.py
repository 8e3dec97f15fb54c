"""The socket that Java connects to, once.

Beside a unix socket lies a file with our process id and nothing else (no line end: Java reads it as
a number): a later worker's Java kills the process that it names, so that no worker outlives its own
server for long.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lmi.core import ConfigError

_LONGEST_PATH: Final = 107  # bytes of a unix socket's path on Linux


@contextlib.contextmanager
def listening(address: Path | tuple[str, int]) -> Iterator[socket.socket]:
    """A bound and listening socket; its files are removed at the end. Raises ConfigError."""
    if isinstance(address, Path):
        with _unix(address) as listener:
            yield listener
        return
    host, port = address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise _unusable("--port", f"{host}:{port}", error) from error
        listener.listen(1)
        yield listener


@contextlib.contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            "--sock-name",
            str(path),
            "the model server",
            f"a path of at most {_LONGEST_PATH} bytes; give it a shorter -Djava.io.tmpdir",
        )
    pid_file = path.with_name(f"{path.name}.pid")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            path.unlink(missing_ok=True)  # a dead worker's
            listener.bind(str(path))
            pid_file.write_text(str(os.getpid()))
        except OSError as error:
            raise _unusable("--sock-name", str(path), error) from error
        listener.listen(1)
        try:
            yield listener
        finally:
            for left in (path, pid_file):
                with contextlib.suppress(OSError):
                    left.unlink()


def _unusable(option: str, value: str, error: OSError) -> ConfigError:
    want = f"an address that can be listened on ({error.strerror or error})"
    return ConfigError(option, value, "the model server", want)
