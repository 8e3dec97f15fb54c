"""What every session has, whatever it serves: a state, the live requests, background tasks, an end.

The rule to keep: a state changes only in `enter`, and the requests that live are those in `lives`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Protocol

from lmi.core import EngineDead, LmiError, Unavailable
from lmi.session.config import Progress
from lmi.session.states import Health, State

log = logging.getLogger("lmi.session")

_RETRY_LOADING = 5.0  # seconds; loading takes longer, but a load balancer asks often anyway


class Ending(Protocol):
    """A live request, as far as its session's life is concerned."""

    def fail(self, error: LmiError, /) -> None: ...


class Life:
    """One session's. Made and used on a running event loop, but for `report`."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.state = State.LOADING
        self.reason = "not started"
        self.failure: LmiError | None = None
        self.lives: set[Ending] = set()
        self.progress: Progress = _nobody
        self._settled = asyncio.Event()  # loaded, or known never to be
        self._idle = asyncio.Event()
        self._idle.set()
        self.tasks: set[asyncio.Task[None]] = set()

    # State

    def enter(self, state: State, reason: str) -> None:
        """Change the state."""
        self.state, self.reason = state, reason
        if state is not State.LOADING:
            self._settled.set()

    def fail_for_good(self, error: LmiError) -> None:
        """Nothing will come back any more."""
        self.failure = error
        self.enter(State.FAILED, str(error))

    async def ready(self) -> None:
        """Wait until the model answers; raises the load's error, or Unavailable, if it won't."""
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure
        if self.state not in (State.READY, State.RESTARTING):
            raise self.unavailable()

    def health(self) -> Health:
        """The state now, with a phase or a reason for people."""
        return Health(self.state, self.reason)

    def unavailable(self) -> Unavailable:
        """What a request is told that comes at the wrong time."""
        after = None if self.state is State.FAILED else _RETRY_LOADING
        return Unavailable(
            f"model {self.model!r} is {self.state}: {self.reason}", retry_after=after
        )

    def report(self, phase: str, done: int, total: int) -> None:
        """Loading goes on; from any thread."""
        if self.state in (State.LOADING, State.RESTARTING):
            self.reason = f"{phase} {done / total:.0%}" if total else phase
        self.progress(phase, done, total)

    # Requests

    def begin(self, live: Ending) -> None:
        """A request was accepted."""
        self.lives.add(live)
        self._idle.clear()

    def finish(self, live: Ending) -> None:
        """A request is over, or was never let in."""
        self.lives.discard(live)
        if not self.lives:
            self._idle.set()

    def fail_all(self, error: LmiError) -> None:
        """End all requests with an error each."""
        for live in list(self.lives):
            live.fail(error)

    # The end

    async def drain(self, grace: float) -> None:
        """Refuse new requests, let the live ones finish for `grace` seconds, end the others."""
        if self.state in (State.DRAINING, State.CLOSED):
            return
        self.enter(State.DRAINING, "shutting down")
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%s: %d requests outlived the grace time", self.model, len(self.lives))
        self.fail_all(Unavailable("the server is shutting down"))

    async def close(self) -> bool:
        """End all requests and tasks; False where that was done before."""
        if self.state is State.CLOSED:
            return False
        self.enter(State.CLOSED, "closed")
        self.fail_all(Unavailable("the server is shutting down"))
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return True

    # Background work

    def start(self, progress: Progress, *work: Coroutine[object, object, None]) -> None:
        """Begin to load, with the tasks that do it. progress: gets every phase, from any thread."""
        self.progress = progress
        self.reason = "starting"
        for each in work:
            self.spawn(each)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run a task that ends with the session; an error in it is the session's end."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: the supervisor failed", self.model, exc_info=error)
            self.fail_for_good(EngineDead(f"{type(error).__name__}: {error}"))


def _nobody(phase: str, done: int, total: int) -> None:
    """Progress before anybody asked for it."""
