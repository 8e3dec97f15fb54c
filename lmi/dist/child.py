"""The worker process as its parent sees it: started, listened to, and ended.

One thread per worker starts it, reads its socket, and waits for its end. It must be the one that
starts it: the kernel's "kill me with my parent" means the thread that forked, and an engine may be
loaded by a thread that ends long before the engine.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

from lmi.dist.cores import available_cores
from lmi.dist.outbox import Outbox
from lmi.dist.wire import Close, Deframer, FromFront, Start, frame

_RECEIVE_BYTES: Final = 1 << 18
# For fork and exec, which wait for the disk at worst.
_SPAWN_SECONDS: Final = 30.0
# From the end of the socket to the end of the process, before the end is made known without an
# exit code: a crash takes less, an orderly exit of a large process may take longer.
_EXIT_CODE_SECONDS: Final = 0.2
# For an orderly exit, before it is killed: long enough to give back a large KV cache.
_EXIT_SECONDS: Final = 5.0
# For a killed process to go: it may sit in a system call that can't be interrupted.
_KILL_SECONDS: Final = 10.0

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

# oneDNN and torch's layer over it keep a compiled kernel for each shape they met, 1,024 of them by
# default. A step may have any number of tokens: those came to 700 MiB beside a model of 4 MiB.
_KERNEL_CACHES: Final = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}


def worker_environment(threads: int | None, base: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: this process's module path, its threads, and bounds of its caches.

    The number of threads must be known before torch is imported. threads None: what `base` says, or
    all cores that we may use.
    """
    chosen = {name: base[name] for name in _THREAD_VARIABLES if name in base}
    if threads is not None or not chosen:
        count = available_cores() if threads is None else threads
        chosen = dict.fromkeys(_THREAD_VARIABLES, str(count))
    path = os.pathsep.join(part for part in sys.path if part)
    return {**_KERNEL_CACHES, **base, **chosen, "PYTHONPATH": path}


class Child:
    """A worker process. Made and closed by any thread; `frames` and `send` belong to one.

    wake is called, by the thread that listens, once for the frames that came together, and when the
    process is gone.
    """

    def __init__(self, start: Start) -> None:
        self.wake: Callable[[], None] = _nobody
        self.last_heard = time.monotonic()
        self._spawned = Event()  # or it could not be
        self._process: subprocess.Popen[bytes] | None = None
        self._start_error: OSError | None = None
        self._frames: SimpleQueue[bytes | None] = SimpleQueue()  # None: gone, nothing follows
        self._ours, theirs = socket.socketpair()
        self._outbox = Outbox(self._ours)
        self._environment = worker_environment(start.config.threads, os.environ)
        self._thread = Thread(target=self._live, args=(theirs,), name="lmi-dist", daemon=True)
        self._thread.start()
        self.send(start)

    @property
    def pid(self) -> int | None:
        """The process's id, None before it started."""
        return None if self._process is None else self._process.pid

    def send(self, message: FromFront) -> None:
        """Send a message without waiting; dropped if the worker is gone."""
        self._outbox.send(frame(message))

    def next_frame(self, timeout: float) -> bytes | None:
        """The next frame, None when the worker is gone. Raises queue.Empty after `timeout` seconds.

        After None there is nothing more to wait for.
        """
        if timeout <= 0:
            return self._frames.get_nowait()
        return self._frames.get(timeout=timeout)

    @property
    def has_news(self) -> bool:
        """Whether `next_frame` would return at once."""
        return not self._frames.empty()

    def epitaph(self) -> str:
        """How the process ended, for a person; to be asked when it is gone."""
        if self._process is None:
            return f"LMI-Dist's worker could not be started: {self._start_error}"
        code = self._process.poll()
        who = f"LMI-Dist's worker (process {self._process.pid})"
        if code is None:
            return f"{who} closed its connection"
        if code < 0:
            return f"{who} was killed by {signal.Signals(-code).name}"
        return f"{who} ended with exit code {code}"

    def close(self, grace: float = _EXIT_SECONDS) -> None:
        """End the process: it is asked, and after `grace` seconds killed. Idempotent."""
        self.send(Close())
        self._spawned.wait(_SPAWN_SECONDS)
        self._thread.join(grace)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
        self._thread.join(_KILL_SECONDS)
        self._ours.close()

    def _live(self, theirs: socket.socket) -> None:
        try:
            with theirs:
                self._process = self._spawn(theirs.fileno())
        except OSError as error:
            self._start_error = error
        self._spawned.set()
        if self._process is not None:
            self._listen()
            self._await_exit(_EXIT_CODE_SECONDS)
        self._frames.put(None)
        self.wake()
        if self._process is not None and not self._await_exit(_EXIT_SECONDS):
            self._process.kill()
            self._await_exit(_KILL_SECONDS)

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "lmi.dist.worker"),
                *("--fd", str(fd), "--parent", str(os.getpid())),
            ],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=2,  # whatever a library prints belongs to the log
            pass_fds=(fd,),
        )

    def _listen(self) -> None:
        deframer = Deframer()
        while data := self._receive():
            came = False
            for part in deframer.feed(data):
                self._frames.put(part)
                came = True
            if came:
                self.last_heard = time.monotonic()
                self.wake()

    def _receive(self) -> bytes:
        try:
            return self._ours.recv(_RECEIVE_BYTES)
        except OSError:  # reset: gone as well
            return b""

    def _await_exit(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def _nobody() -> None:
    """Until somebody asks to be woken there is nobody to wake."""
