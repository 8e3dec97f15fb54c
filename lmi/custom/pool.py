"""A Function over worker processes: what comes in is queued, given out, and answered exactly once.

Two threads meet here under one lock: the caller's (submit, poll, cancel) and the supervisor's,
which brings what the workers say. Neither ever waits for a worker while it holds the lock.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Condition
from typing import Final

from lmi.core import (
    Call,
    DeadlineExceeded,
    EngineDead,
    FunctionInfo,
    FunctionStats,
    LmiError,
    Piece,
    RequestError,
)
from lmi.custom.desk import Desk
from lmi.custom.messages import WINDOW, Cancel, Part, Ready, Request, Taken, Work
from lmi.custom.process import WorkerProcess
from lmi.custom.spec import FunctionSpec, Progress, silent
from lmi.custom.supervisor import Supervisor

log = logging.getLogger("lmi.custom")

DEFAULT_FUNCTION: Final = "handle"  # of a call that names no other
_OBEY_SECONDS: Final = 5.0  # for an `async` handler to end a call that was cancelled
_GROW_AT: Final = 2  # batches that wait before another worker is started


class Pool:
    """An `lmi.core.Function`. Made by `lmi.custom.load.load_function`."""

    def __init__(self, spec: FunctionSpec, site: Path | None) -> None:
        self._spec = spec
        self._changed = Condition()
        self._desk = Desk(spec.batch_size, spec.max_batch_delay, spec.handler)
        self._workers: dict[int, WorkerProcess] = {}  # that are ready, by process id
        self._ready: Ready | None = None
        self._idle_since: dict[int, float] = {}
        self._pieces: deque[Piece] = deque()
        self._taken: dict[int, int] = {}  # bytes that a stream's worker has not been told of
        self._left: dict[int, float | None] = {}  # running calls that nobody waits for: see `_drop`
        self._failed_load: LmiError | None = None
        self._dead: LmiError | None = None
        self._wake: Callable[[], None] = _nobody
        self._supervisor = Supervisor(spec, site, self)
        self._supervisor.start()

    def await_workers(self, progress: Progress = silent) -> None:
        """Wait until all are ready; raises what the first that failed said."""
        count = self._spec.workers
        with self._changed:
            while len(self._workers) < count:
                if self._failed_load is not None:
                    raise self._failed_load
                if self._dead is not None:
                    raise self._dead
                progress("loading the handler", len(self._workers), count)
                self._changed.wait()

    # What the session calls

    @property
    def info(self) -> FunctionInfo:
        """Fixed facts of what was loaded."""
        spec = self._spec
        handler, each = spec.handler, spec.batch_size
        if self._ready is not None:
            handler, each = self._ready.handler, self._ready.capacity or spec.batch_size
        details = [("handler", handler), ("workers", str(spec.workers))]
        if spec.batch_size > 1:
            details.append(("batch", f"{spec.batch_size} within {spec.max_batch_delay:g} s"))
        return FunctionInfo(handler, spec.workers, spec.workers * each, tuple(details))

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return self._supervisor.pids

    def submit(self, call_id: int, call: Call, /) -> None:
        """Accept a call; raises EngineDead when no worker is left."""
        if call.function == DEFAULT_FUNCTION != self._spec.handler:
            call = replace(call, function=self._spec.handler)
        now = time.monotonic()
        with self._changed:
            if self._dead is not None:
                raise self._dead
            self._desk.submit(call_id, call, now)
            self._assign(now)
            waits = self._desk.next_assignment(now) is not None
        if waits:
            self._supervisor.wake()

    def poll(self, timeout: float, /) -> Sequence[Piece]:
        """The pieces that are there; waits up to `timeout` seconds for one."""
        with self._changed:
            if timeout > 0 and not self._pieces and self._dead is None:
                self._changed.wait(timeout)
            pieces = list(self._pieces)
            self._pieces.clear()
            if not pieces and self._dead is not None:
                raise self._dead
            for piece in pieces:
                if piece.data and not piece.last:
                    self._take(piece.call_id, len(piece.data))
            if self._dead is not None:
                self._wake()  # for the next poll, which raises
        return pieces

    def cancel(self, call_id: int, /) -> None:
        """Drop a call that waits, or stop reading the stream of one that runs."""
        with self._changed:
            if self._desk.drop(call_id):
                self._emit(Piece(call_id, last=True, error=RequestError("the client left")))
                return
            pid = self._desk.worker_of(call_id)
            if pid is not None and call_id not in self._left:
                self._left[call_id] = None
                self._workers[pid].send(Cancel(call_id))

    def on_ready(self, wake: Callable[[], None], /) -> None:
        """Register a callback, called from any thread when poll has news or would raise."""
        with self._changed:
            self._wake = wake
            if self._pieces or self._dead is not None:
                wake()

    def stats(self) -> FunctionStats:
        """The load now."""
        return FunctionStats(
            running=self._desk.running,
            waiting=self._desk.waiting,
            workers=len(self._workers),
            restarts=self._supervisor.restarts,
        )

    def close(self) -> None:
        """End the workers. Idempotent."""
        with self._changed:
            self._dead = self._dead or EngineDead("the function is closed")
        self._supervisor.close()

    # What the supervisor calls

    def worker_ready(self, worker: WorkerProcess, ready: Ready) -> None:
        """A worker takes calls from now on."""
        now = time.monotonic()
        with self._changed:
            self._ready = ready
            self._workers[worker.pid] = worker
            self._idle_since[worker.pid] = now
            self._desk.add_worker(worker.pid, ready.capacity)
            self._assign(now)
            self._changed.notify_all()

    def worker_said(self, worker: WorkerProcess, part: Part) -> None:
        """A worker has brought a part of an answer."""
        now = time.monotonic()
        call_id = part.call_id
        with self._changed:
            if not self._desk.heard(call_id, now):
                return
            left = call_id in self._left
            answered = left and self._left[call_id] is not None
            if part.last:
                self._desk.finish(call_id)
                self._taken.pop(call_id, None)
                self._left.pop(call_id, None)
                self._idle_since[worker.pid] = now
                self._assign(now)
            if answered:
                return
            error = None if part.fault is None else part.fault.exception()
            if part.last or not left:
                self._emit(Piece(call_id, part.data, part.described, part.last, error))

    def worker_gone(self, worker: WorkerProcess, error: LmiError) -> None:
        """A worker is gone, and the calls that it had with it."""
        with self._changed:
            self._workers.pop(worker.pid, None)
            self._idle_since.pop(worker.pid, None)
            for call_id in self._desk.remove_worker(worker.pid):
                self._taken.pop(call_id, None)
                if self._left.pop(call_id, None) is None:
                    self._emit(Piece(call_id, last=True, error=error))

    def load_failed(self, error: LmiError) -> None:
        """A worker did not get to the point of taking calls."""
        with self._changed:
            self._failed_load = self._failed_load or error
            self._changed.notify_all()

    def tick(self) -> float | None:
        """Look at the clock: batches that are due, calls that hang, workers to add or to end."""
        now = time.monotonic()
        with self._changed:
            self._assign(now)
            self._end_silent(now)
            self._scale(now)
            return self._desk.next_assignment(now)

    def given_up(self, error: LmiError) -> None:
        """No worker is left and none will come back."""
        with self._changed:
            self._dead = EngineDead(f"no worker is left: {error}")
            for call_id in self._desk.calls:
                self._emit(Piece(call_id, last=True, error=self._dead))
            self._changed.notify_all()
            self._wake()

    # Under the lock

    def _assign(self, now: float) -> None:
        for pid, batch in self._desk.assign(now):
            requests = [Request.of(call_id, call, call.function) for call_id, call in batch]
            self._workers[pid].send(Work(requests))

    def _emit(self, piece: Piece) -> None:
        self._pieces.append(piece)
        if len(self._pieces) == 1:
            self._changed.notify_all()
            self._wake()

    def _take(self, call_id: int, size: int) -> None:
        """Tell a stream's worker, now and then, that its bytes were handed on."""
        pid = self._desk.worker_of(call_id)
        if pid is None:
            return
        size += self._taken.get(call_id, 0)
        if size >= WINDOW // 4:
            self._workers[pid].send(Taken(call_id, size))
            size = 0
        self._taken[call_id] = size

    def _end_silent(self, now: float) -> None:
        """End calls that brought nothing for too long; with their workers where need be."""
        limit = self._spec.predict_timeout
        for call_id in self._desk.silent(limit, now):
            pid = self._desk.worker_of(call_id)
            if pid is None or self._left.get(call_id) is not None:
                continue
            error = DeadlineExceeded(f"the handler brought nothing for {limit:g} s")
            worker = self._workers[pid]
            if self._ready is not None and self._ready.capacity:
                if call_id not in self._left:
                    self._emit(Piece(call_id, last=True, error=error))
                    worker.send(Cancel(call_id))
                self._left[call_id] = now + _OBEY_SECONDS
            else:
                log.error("%s: %s: its worker is ended", self._spec.name, error)
                self._supervisor.condemn(worker, error)
        for call_id, deadline in self._left.items():
            pid = self._desk.worker_of(call_id)
            if deadline is not None and now > deadline and pid is not None:
                error = DeadlineExceeded("the handler's event loop is blocked")
                self._supervisor.condemn(self._workers[pid], error)

    def _scale(self, now: float) -> None:
        """One worker more while a queue is long, one less when it had nothing to do."""
        spec = self._spec
        if spec.max_workers <= spec.workers or self._dead is not None:
            return
        if self._desk.waiting > _GROW_AT * spec.batch_size:
            self._supervisor.grow()
            return
        for pid, since in list(self._idle_since.items()):
            surplus = len(self._workers) > spec.workers
            if surplus and now - since > spec.max_idle and not self._desk.load(pid):
                worker = self._workers.pop(pid)
                del self._idle_since[pid]
                self._desk.remove_worker(pid)
                self._supervisor.shrink(worker.number)


def _nobody() -> None:
    """Nobody listens yet."""
