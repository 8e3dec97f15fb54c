"""One worker process as its front sees it: started, listened to, and ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import lmi
from lmi.custom.messages import (
    Close,
    FromFront,
    FromWorker,
    Start,
    decode_from_worker,
    frame,
)
from lmi.custom.spec import FunctionSpec
from lmi.ipc.framing import Deframer
from lmi.ipc.outbox import Outbox

# What the workers' code prints, one line each; INFO for its standard output, WARNING for the other.
printed = logging.getLogger("lmi.worker")

_RECEIVE_BYTES: Final = 1 << 18
_MAX_LINE: Final = 1 << 16  # bytes; a longer one is logged in pieces
_LAST_WORDS: Final = 5  # lines of standard error that an epitaph repeats
# From the end of the socket to the end of the process: a crash takes less, and an orderly exit of a
# large process may take longer than anybody wants to wait for its exit code.
_EXIT_CODE_SECONDS: Final = 0.4


class WorkerProcess:
    """A worker. To be made, used and ended by one thread, but for `send`.

    The kernel ends the process with the thread that started it.
    """

    def __init__(self, spec: FunctionSpec, number: int, site: Path | None) -> None:
        """number: the worker's, for its seat and for people. site: where its requirements are.

        Raises OSError where the interpreter can't be started.
        """
        self.number = number
        seat = spec.seats[number % len(spec.seats)]
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [
                    *(spec.python, "-m", "lmi.custom.worker"),
                    *("--fd", str(theirs.fileno()), "--parent", str(os.getpid())),
                ],
                cwd=spec.folder,
                env=_environ(spec, seat.environ, site),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                # Ctrl-C is for the front alone; and what the handler starts can be ended with it.
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.link = ours
        self._outbox = Outbox(ours)
        self._deframer = Deframer()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        who = f"{spec.name}-{number}"
        self.prints = (
            Print(self._process.stdout, who, logging.INFO),
            Print(self._process.stderr, who, logging.WARNING),
        )
        self.send(
            Start(
                name=spec.name,
                folder=str(spec.folder),
                entry_point=spec.entry_point,
                fallback=spec.fallback,
                handler=spec.handler,
                properties=dict(spec.properties),
                device_id=seat.device_id,
                concurrency=spec.concurrency,
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: FromFront) -> None:
        """Send one message; never waits, and from any thread."""
        self._outbox.send(frame(message))

    def receive(self) -> list[FromWorker] | None:
        """The messages that are here; None once the worker has closed its end."""
        try:
            data = self.link.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return [decode_from_worker(each) for each in self._deframer.feed(data)] if data else None

    def has_ended(self) -> bool:
        """Whether the process is gone, though a child of it may keep its socket open."""
        return self._process.poll() is not None

    def bury(self) -> str:
        """End what is left of it and close everything; how it ended, for a person."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_CODE_SECONDS)
        code = self._process.poll()
        self.kill()
        self._process.wait()
        for each in self.prints:
            each.read()
            each.close()
        self.link.close()
        return _ended(self.pid, code) + _last_words(self.prints[1])

    def ask_to_end(self) -> None:
        """Let it end in order."""
        self.send(Close())

    def wait(self, seconds: float) -> bool:
        """Wait for its end; True if it came."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill it and whatever it started; returns before it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Print:
    """A standard stream of a worker: its lines go to the log."""

    def __init__(self, pipe: IO[bytes], who: str, level: int) -> None:
        os.set_blocking(pipe.fileno(), False)
        self.pipe = pipe
        self._who = who
        self._level = level
        self._rest = b""
        self.last: deque[str] = deque(maxlen=_LAST_WORDS)

    def read(self) -> bool:
        """Log the lines that are here; False at the stream's end."""
        try:
            data = os.read(self.pipe.fileno(), _MAX_LINE)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > _MAX_LINE or not data:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._log(line)
        return bool(data)

    def close(self) -> None:
        self.pipe.close()

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self.last.append(text)
            printed.log(self._level, "[%s] %s", self._who, text)


def _environ(spec: FunctionSpec, own: Mapping[str, str], site: Path | None) -> dict[str, str]:
    paths = [] if site is None else [str(site)]
    if spec.python != sys.executable:  # another installation need not have this package
        paths.append(str(Path(lmi.__file__).parents[1]))
    inherited = os.environ.get("PYTHONPATH")
    paths += [] if inherited is None else [inherited]
    environ = {**os.environ, **spec.environ, **own}
    if paths:
        environ["PYTHONPATH"] = os.pathsep.join(paths)
    # A file of the model's folder must not be taken for a module that this package needs.
    environ["PYTHONSAFEPATH"] = "1"
    return environ


def _ended(pid: int, code: int | None) -> str:
    if code is None:
        return f"worker process {pid} hung up"
    if code >= 0:
        return f"worker process {pid} ended with exit code {code}"
    try:
        return f"worker process {pid} was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"worker process {pid} was killed by signal {-code}"


def _last_words(stream: Print) -> str:
    words = " / ".join(_short(stream.last))
    return f"; its last words: {words}" if words else ""


def _short(lines: deque[str]) -> Iterator[str]:
    for line in lines:
        yield line[:200]
