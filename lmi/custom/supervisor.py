"""The worker processes of one Function: started, read, replaced, and ended, by a thread of its own.

It must be the one that starts them: the kernel's "kill me with my parent" means the thread that
forked, and a Function may be loaded by a thread that ends long before it. A worker that ends is
replaced; each failure in a row doubles the pause before the next attempt. The rule to keep: what
happens is told to a `Listener`, and only it decides what a call's answer is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Final, Protocol

from lmi.core import EngineDead, LmiError
from lmi.custom.messages import Failed, Part, Ready
from lmi.custom.process import Print, WorkerProcess
from lmi.custom.spec import FunctionSpec

log = logging.getLogger("lmi.custom")

_TICK: Final = 0.25  # seconds between looks at the clock: at hung calls, pauses and idle workers
_END_SECONDS: Final = 5.0  # for workers to end in order, before they are killed
_LIVED: Final = 60.0  # seconds after which a worker's end counts as the first failure again


class Listener(Protocol):
    """Called on the supervisor's thread."""

    def worker_ready(self, worker: WorkerProcess, ready: Ready, /) -> None: ...
    def worker_said(self, worker: WorkerProcess, part: Part, /) -> None: ...
    def worker_gone(self, worker: WorkerProcess, error: LmiError, /) -> None: ...
    def tick(self) -> float | None:
        """The clock went on; seconds until the next look is wanted at the latest."""

    def load_failed(self, error: LmiError, /) -> None: ...
    def given_up(self, error: LmiError, /) -> None:
        """No worker is left and none will come back."""


class _Place:
    """A worker's number, whoever holds it. restart_at: None while a worker does."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.ready = False
        self.since = 0.0  # when the worker was started, then when it was ready
        self.failures = 0  # in a row: loads that failed, and lives that were short
        self.failed_loads = 0  # in a row
        self.restart_at: float | None = None
        self.given_up = False


class Supervisor:
    """Runs until `close`."""

    def __init__(self, spec: FunctionSpec, site: Path | None, listener: Listener) -> None:
        self._spec = spec
        self._site = site
        self._listener = listener
        self._places = [_Place(number) for number in range(spec.workers)]
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wake)
        self._closing = Event()
        self._condemned: dict[int, LmiError] = {}  # why a worker is killed, by process id
        self.restarts = 0
        self._thread = Thread(target=self._run, name="lmi-custom", daemon=True)

    def start(self) -> None:
        """Start the workers."""
        self._thread.start()

    def wake(self) -> None:
        """Have `tick` called soon; from the thread that closes, or the supervisor's."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # a wake-up is on its way already

    def condemn(self, worker: WorkerProcess, error: LmiError) -> None:
        """Kill a worker; `error` is what its calls and the log are told."""
        self._condemned[worker.pid] = error
        worker.kill()

    def close(self) -> None:
        """End all workers; returns when they are gone. Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self.wake()
            self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(place.worker.pid for place in self._places if place.worker is not None)

    def grow(self) -> None:
        """Start one more worker, if there may be one and none is loading; on this thread."""
        loading = any(not place.ready for place in self._places)
        if not loading and len(self._places) < self._spec.max_workers:
            place = _Place(1 + max((each.number for each in self._places), default=-1))
            self._places.append(place)
            self._start(place)

    def shrink(self, number: int) -> None:
        """End a worker that is not needed; on this thread."""
        place = next(each for each in self._places if each.number == number)
        self._places.remove(place)
        if place.worker is not None:
            self._forget(place.worker)
            place.worker.ask_to_end()
            place.worker.wait(_END_SECONDS)
            place.worker.bury()

    # The thread

    def _run(self) -> None:
        try:
            for place in self._places:
                self._start(place)
            while not self._closing.is_set():
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._look()
        except Exception as error:  # nobody else would tell those who wait
            log.exception("the supervisor of the workers failed")
            self._listener.given_up(EngineDead(f"{type(error).__name__}: {error}"))
        finally:
            self._end_all()

    def _patience(self) -> float:
        wanted = self._listener.tick()
        return _TICK if wanted is None else min(_TICK, wanted)

    def _drain_wake(self) -> None:
        os.read(self._wake_read, 4096)

    def _start(self, place: _Place) -> None:
        place.restart_at, place.ready = None, False
        place.since = time.monotonic()
        try:
            worker = WorkerProcess(self._spec, place.number, self._site)
        except OSError as error:
            why = f"{self._spec.python} can't be started: {error.strerror or error}"
            self._fail(place, EngineDead(why))
            return
        place.worker = worker
        self._selector.register(
            worker.link, selectors.EVENT_READ, lambda: self._read(place, worker)
        )
        for stream in worker.prints:
            self._selector.register(
                stream.pipe, selectors.EVENT_READ, self._reader(place, worker, stream)
            )

    def _reader(self, place: _Place, worker: WorkerProcess, stream: Print) -> Callable[[], None]:
        def read() -> None:
            if place.worker is worker and not stream.read():  # else buried in this turn
                self._selector.unregister(stream.pipe)

        return read

    def _read(self, place: _Place, worker: WorkerProcess) -> None:
        if place.worker is not worker:
            return  # buried in this turn
        messages = worker.receive()
        if messages is None:
            self._gone(place, worker)
            return
        for message in messages:
            match message:
                case Part():
                    self._listener.worker_said(worker, message)
                case Ready():
                    place.ready, place.failed_loads = True, 0
                    place.since = time.monotonic()
                    self._listener.worker_ready(worker, message)
                case Failed(fault):
                    self._condemned.setdefault(worker.pid, fault.exception())

    def _look(self) -> None:
        """At the clock, and at processes that ended without closing their sockets."""
        now = time.monotonic()
        for place in list(self._places):
            worker = place.worker
            if worker is None:
                if place.restart_at is not None and now >= place.restart_at:
                    self.restarts += 1
                    self._start(place)
            elif worker.has_ended():
                self._gone(place, worker)
            elif not place.ready and now - place.since > self._spec.loading_timeout:
                self.condemn(
                    worker,
                    EngineDead(
                        f"worker process {worker.pid} was not ready after "
                        f"{self._spec.loading_timeout:g} s"
                    ),
                )
                self._gone(place, worker)

    def _gone(self, place: _Place, worker: WorkerProcess) -> None:
        # What it said before its end counts.
        while messages := worker.receive():
            for message in messages:
                if isinstance(message, Part):
                    self._listener.worker_said(worker, message)
                elif isinstance(message, Failed):
                    self._condemned.setdefault(worker.pid, message.fault.exception())
        self._forget(worker)
        epitaph = worker.bury()
        place.worker = None
        error = self._condemned.pop(worker.pid, None) or EngineDead(epitaph)
        log.error("%s: %s", self._spec.name, error)
        self._listener.worker_gone(worker, error)
        self._fail(place, error)

    def _fail(self, place: _Place, error: LmiError) -> None:
        """Plan the next attempt, or give the place up."""
        if not place.ready:
            self._listener.load_failed(error)
        if len(self._places) > self._spec.workers:
            self._places.remove(place)  # there are enough without it
            return
        now = time.monotonic()
        place.failed_loads += not place.ready
        place.failures = 1 if place.ready and now - place.since > _LIVED else place.failures + 1
        place.ready = False
        if place.failed_loads <= self._spec.restart_limit:
            pause = self._spec.restart_backoff * 2 ** (place.failures - 2)
            at_once = place.failures == 1
            place.restart_at = now + (0 if at_once else min(pause, self._spec.restart_backoff_max))
            return
        place.given_up = True
        if all(each.given_up for each in self._places):
            self._listener.given_up(error)

    def _forget(self, worker: WorkerProcess) -> None:
        ends = [worker.link.fileno(), *(stream.pipe.fileno() for stream in worker.prints)]
        for each in ends:
            with contextlib.suppress(KeyError):  # a stream that came to its end
                self._selector.unregister(each)

    def _end_all(self) -> None:
        workers = [place.worker for place in self._places if place.worker is not None]
        for worker in workers:
            worker.ask_to_end()
        until = time.monotonic() + _END_SECONDS
        for worker in workers:
            worker.wait(until - time.monotonic())
            self._forget(worker)
            worker.bury()
        self._selector.close()
