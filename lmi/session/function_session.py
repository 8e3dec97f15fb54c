"""The supervisor of one model that is a Function: loaded, watched and drained here.

The function replaces its own workers; while none is up the model counts as restarting, and calls
wait for the next one. Everything but loading and closing happens on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmi.core import (
    Call,
    EngineDead,
    Function,
    FunctionInfo,
    FunctionStats,
    LmiError,
    Piece,
    Unavailable,
)
from lmi.session.admission import DrainRate, admit
from lmi.session.config import Progress
from lmi.session.doorbell import Doorbell
from lmi.session.function_call import FunctionCall
from lmi.session.life import Life
from lmi.session.live import Sink
from lmi.session.measures import Measures
from lmi.session.retired import Retired
from lmi.session.states import Health, State
from lmi.session.threads import in_thread

log = logging.getLogger("lmi.session")

_TICK = 1.0  # seconds between updates of the queue's drain rate

_ids = itertools.count(1)  # never used twice in a process

LoadFunction = Callable[[Progress], Function]


@dataclass(frozen=True, slots=True)
class FunctionConfig:
    """model: its name in paths and metrics. max_queue: calls that wait beyond those that run."""

    model: str
    max_queue: int = 1000


class FunctionSession:
    """One model. Made and used on a running event loop."""

    def __init__(self, config: FunctionConfig, load: LoadFunction) -> None:
        """load: loads the function; called once, in a worker thread."""
        self.config = config
        self.measures = Measures()
        self._load = load
        self._life = Life(config.model)
        self._function: Function | None = None
        self._info: FunctionInfo | None = None
        self._calls: dict[int, FunctionCall] = {}
        self._finished = 0
        self._rate = DrainRate(time.monotonic())
        self._retired = Retired()
        self._bell = Doorbell(self._turn)

    # What callers see

    def start(self, progress: Progress = lambda phase, done, total: None) -> None:
        """Begin to load. progress: gets every phase, from any thread."""
        self._life.start(progress, self._bring_up(), self._watch())

    async def ready(self) -> None:
        """Wait until the model answers; raises the load's error, or Unavailable, if it won't."""
        await self._life.ready()

    @property
    def name(self) -> str:
        """The model's name in paths and metrics."""
        return self.config.model

    @property
    def max_queue(self) -> int:
        """Calls that may wait beyond those that run."""
        return self.config.max_queue

    def health(self) -> Health:
        """The state now, with a phase or a reason for people."""
        if self._life.state is State.READY and not self.stats().workers:
            return Health(State.RESTARTING, "no worker is up; another is being started")
        return self._life.health()

    @property
    def info(self) -> FunctionInfo | None:
        """The function's fixed facts; None while there is none."""
        return self._info

    def stats(self) -> FunctionStats:
        """The function's load now; empty while there is none."""
        return FunctionStats() if self._function is None else self._function.stats()

    @property
    def held(self) -> int:
        """Calls that were accepted and have not ended."""
        return len(self._calls)

    def accept(self, call: Call, sink: Sink, /) -> FunctionCall:
        """Take a call in, or raise RequestError: then the sink is never called."""
        function, info = self._function, self._info
        if self._life.state is not State.READY or function is None or info is None:
            raise self._life.unavailable()
        load = function.stats()
        admit(
            held=load.running + load.waiting,
            new=1,
            running=info.concurrency,
            max_queue=self.config.max_queue,
            rate=self._rate,
        )
        accepted = FunctionCall(next(_ids), sink, self.measures, self._drop)
        try:
            function.submit(accepted.id, call)
        except EngineDead as error:
            raise Unavailable(str(error)) from error
        self._calls[accepted.id] = accepted
        self._life.begin(accepted)
        self.measures.accepted += 1
        return accepted

    async def drain(self, grace: float) -> None:
        """Refuse new calls, let the live ones finish for `grace` seconds, end the others."""
        await self._life.drain(grace)

    async def close(self) -> None:
        """End everything and the function's workers. Idempotent."""
        if await self._life.close():
            function, self._function = self._function, None
            if function is not None:
                self._retired.add(function)
            await self._retired.wait()

    # The function's way through life

    async def _bring_up(self) -> None:
        try:
            function = await in_thread(
                lambda: self._load(self._life.report), unwanted=lambda it: it.close()
            )
        except LmiError as error:
            self._life.fail_for_good(error)
            return
        self._function, self._info = function, function.info
        function.on_ready(self._bell.ring)
        if self._life.state is State.LOADING:
            self._life.enter(State.READY, "")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._rate.update(self._finished, time.monotonic())
            self.measures.engine_deaths = self.stats().restarts

    def _drop(self, call: FunctionCall) -> None:
        self._calls.pop(call.id, None)
        self._life.finish(call)
        self._finished += 1
        if self._function is not None:
            self._function.cancel(call.id)  # ignored where it is over

    def _turn(self) -> None:
        if self._function is None:
            return
        try:
            pieces = self._function.poll(0.0)
        except EngineDead as error:
            self._died(error)
        except Exception as error:
            log.exception("the function's poll failed")
            self._died(EngineDead(f"the function failed: {type(error).__name__}: {error}"))
        else:
            self._dispatch(pieces)

    def _dispatch(self, pieces: Sequence[Piece]) -> None:
        touched: dict[FunctionCall, None] = {}
        for piece in pieces:
            call = self._calls.get(piece.call_id)
            if call is not None:
                call.feed(piece)
                touched[call] = None
        for call in touched:
            call.flush()

    def _died(self, error: EngineDead) -> None:
        """No worker is left and none will come back: everybody is told now."""
        function, self._function = self._function, None
        log.error("%s: %s", self.config.model, error)
        if self._life.state is State.READY:
            self._life.enter(State.FAILED, str(error))
        self._life.fail_all(error)
        if function is not None:
            self._retired.add(function)
