"""The ranks of one model as their front sees them: started, listened to, and ended together.

One thread per job starts them, reads their sockets, and waits for their end. It must be the one
that starts them: the kernel's "kill me with my parent" means the thread that forked, and an engine
may be loaded by a thread that ends long before the engine.

A job lives as a whole. When one rank has failed or is gone, whatever the others still compute is
worth nothing: what rank 0 has said is delivered, and all are killed.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

import msgspec

from lmi.core import EngineDead
from lmi.dist.parallel.folder import JobFolder
from lmi.dist.parallel.launch import Crew, Launcher
from lmi.dist.place import Place
from lmi.dist.wire import (
    Close,
    Failed,
    FromFront,
    FromWorker,
    Start,
    decode_from_worker,
    frame,
)
from lmi.ipc.framing import Deframer
from lmi.ipc.outbox import Outbox

_RECEIVE_BYTES: Final = 1 << 18
# For fork and exec, which wait for the disk at worst, or for mpirun.
_START_SECONDS: Final = 150.0
# From the end of a socket to the end of the process, before the end is made known without an exit
# code: a crash takes less, an orderly exit of a large process may take longer.
_EXIT_CODE_SECONDS: Final = 0.4
# From the first sign of a rank's end to the judgement which rank was the cause, and between looks.
_SILENCE_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 0.02
# For an orderly exit, before it is killed: long enough to give back a large KV cache.
_EXIT_SECONDS: Final = 5.0
# For a killed process to go: it may sit in a system call that can't be interrupted.
_KILL_SECONDS: Final = 10.0

# oneDNN and torch's layer over it keep a compiled kernel for each shape they met, 1,024 of them by
# default. A step may have any number of tokens: those came to 700 MiB beside a model of 4 MiB.
_KERNEL_CACHES: Final = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The workers' environment: this process's module path, and bounds of their caches."""
    path = os.pathsep.join(part for part in sys.path if part)
    return {**_KERNEL_CACHES, **base, "PYTHONPATH": path}


class _Link:
    """The front's end of the socket to one rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.ours, self.theirs = socket.socketpair()
        self._deframer = Deframer()

    def read(self) -> list[FromWorker] | None:
        """The messages that came, None when the rank is gone. To be called when there is news."""
        try:
            data = self.ours.recv(_RECEIVE_BYTES)
        except OSError:  # reset: gone as well
            return None
        return [decode_from_worker(part) for part in self._deframer.feed(data)] if data else None


class Job:
    """The processes of one model. Made and closed by any thread; `next_message` and `send` belong
    to one.

    wake is called, by the thread that listens, once for the messages that came together, and when
    the job is over.
    """

    def __init__(self, start: Start, size: int, launcher: Launcher, name: str) -> None:
        """Start `size` ranks. Of `start` the place is filled in here. name: the library's."""
        self.name = name
        self.wake: Callable[[], None] = _nobody
        self.last_heard = time.monotonic()
        self._started = Event()  # or it could not be
        self._crew: Crew | None = None
        self._closing = False
        self._gone: list[int] = []  # ranks whose sockets have ended
        self._failed: list[Failed] = []  # the ranks' own last words
        self._last_words = f"{name}'s worker is gone"
        self._messages: SimpleQueue[FromWorker | None] = SimpleQueue()  # None: over
        self._folder = JobFolder() if size > 1 else None
        self._links = [_Link(rank) for rank in range(size)]
        self._outbox = Outbox(self._links[0].ours)
        for link in self._links[1:]:
            Outbox(link.ours).send(frame(self._for_rank(start, link.rank)))
        self._thread = Thread(target=self._live, args=(launcher,), name="lmi-dist", daemon=True)
        self._thread.start()
        self.send(self._for_rank(start, 0))

    @property
    def pid(self) -> int | None:
        """Rank 0's process id, None before it started."""
        return self.pids[0] if self.pids else None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of all ranks, in order; empty before they started."""
        return () if self._crew is None else tuple(m.pid for m in self._crew.members)

    def send(self, message: FromFront) -> None:
        """Send rank 0 a message without waiting; dropped if it is gone."""
        self._outbox.send(frame(message))

    def next_message(self, timeout: float) -> FromWorker | None:
        """The next message, None when the job is over. Raises queue.Empty after `timeout` seconds.

        After None there is nothing more to wait for.
        """
        if timeout <= 0:
            return self._messages.get_nowait()
        return self._messages.get(timeout=timeout)

    @property
    def has_news(self) -> bool:
        """Whether `next_message` would return at once."""
        return not self._messages.empty()

    def epitaph(self) -> str:
        """How the job ended, for a person; to be asked when it is over."""
        return self._last_words

    def close(self, grace: float = _EXIT_SECONDS) -> None:
        """End the job: rank 0 is asked, and after `grace` seconds all are killed. Idempotent."""
        self._closing = True
        self.send(Close())
        self._started.wait(_START_SECONDS)
        self._thread.join(grace)
        if self._thread.is_alive() and self._crew is not None:
            self._crew.kill_ranks(self._gone)
        self._thread.join(_EXIT_SECONDS + _KILL_SECONDS)
        for link in self._links:
            link.ours.close()

    def _for_rank(self, start: Start, rank: int) -> Start:
        if self._folder is None:
            return start
        place = Place(rank, len(self._links), f"file://{self._folder.path}/meeting")
        return msgspec.structs.replace(start, place=place)

    def _live(self, launcher: Launcher) -> None:
        try:
            with ExitStack() as handed_over:
                theirs = [handed_over.enter_context(link.theirs) for link in self._links]
                self._crew = launcher.launch(theirs, worker_environment(os.environ))
        except (OSError, EngineDead) as error:
            self._last_words = f"{self.name}'s worker could not be started: {error}"
        self._started.set()
        if self._crew is not None:
            with selectors.DefaultSelector() as selector:
                for link in self._links:
                    selector.register(link.ours, selectors.EVENT_READ, link)
                self._listen(selector)
                first = self._find_the_first(selector, self._crew)
                self._last_words = self._account_for(first, self._crew)
                self._crew.kill_ranks(self._gone)
                self._hear_out(selector)
        self._messages.put(None)
        self.wake()
        if self._crew is not None and not self._crew.wait(_EXIT_SECONDS):
            self._crew.kill()
            self._crew.wait(_KILL_SECONDS)
        if self._folder is not None:
            self._folder.close()

    def _listen(self, selector: selectors.BaseSelector) -> None:
        """Read until a rank is gone or has failed; once the job is being closed, until all are."""
        while selector.get_map():
            self._read(selector, None)
            if (self._gone or self._failed) and not self._closing:
                return

    def _find_the_first(self, selector: selectors.BaseSelector, crew: Crew) -> int:
        """The rank whose end is the cause of the others'.

        Whoever suffers from the end of another says so: one that goes without a word is the cause,
        though its socket may outlive it for as long as its memory takes to be given back. Else it
        is the first that spoke.
        """
        until = time.monotonic() + _SILENCE_SECONDS
        while True:
            dead = [
                rank
                for rank, member in enumerate(crew.members)
                if rank in self._gone or member.is_dead()
            ]
            # Only now: what a dead rank said lies in its socket at the latest when it is dead.
            while selector.get_map() and selector.select(0):
                self._read(selector, 0)
            spoke = {failed.rank for failed in self._failed}
            silent = [rank for rank in dead if rank not in spoke]
            if silent:
                return silent[0]
            left = until - time.monotonic()
            if left <= 0 or not selector.get_map():
                return self._failed[0].rank
            self._read(selector, min(left, _LOOK_SECONDS))

    def _hear_out(self, selector: selectors.BaseSelector) -> None:
        """Read what the ranks said before they were killed."""
        until = time.monotonic() + _SILENCE_SECONDS
        while selector.get_map() and (left := until - time.monotonic()) > 0:
            self._read(selector, left)

    def _read(self, selector: selectors.BaseSelector, timeout: float | None) -> None:
        came = False
        for key, _ in selector.select(timeout):
            link: _Link = key.data
            messages = link.read()
            if messages is None:
                selector.unregister(link.ours)
                self._gone.append(link.rank)
                continue
            for message in messages:
                self._messages.put(message)
                came = True
                if isinstance(message, Failed):
                    self._failed.append(message)
        if came:
            self.last_heard = time.monotonic()
            self.wake()

    def _account_for(self, rank: int, crew: Crew) -> str:
        """How a rank ended, for a person."""
        member = crew.members[rank]
        member.wait(_EXIT_CODE_SECONDS)
        which = "worker" if len(self._links) == 1 else f"rank {rank} of {len(self._links)}"
        words = [str(failed.exception()) for failed in self._failed if failed.rank == rank]
        fate = member.end() or ("failed" if words else "is gone")
        return ": ".join([f"{self.name}'s {which} (process {member.pid}) {fate}", *words])


def _nobody() -> None:
    """Until somebody asks to be woken there is nobody to wake."""
