"""The supervisor: one model's engine is loaded, tried, watched, restarted and drained here.

Everything but loading and closing an engine happens on the event loop's thread. An engine that dies
takes its pump along; the requests that lived in it get one error each, and the next engine starts
with a pump of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping

import orjson

from lmi.core import (
    Adapter,
    Call,
    EngineDead,
    EngineInfo,
    EngineStats,
    LmiError,
    Route,
)
from lmi.schemas import ParsedRequest, parse
from lmi.session.adapters import AdapterDesk
from lmi.session.admission import DrainRate, admit
from lmi.session.awaitable import collect
from lmi.session.config import Loaded, Progress, SessionConfig
from lmi.session.handled import HandledCall
from lmi.session.life import Life
from lmi.session.live import Live, Sink
from lmi.session.measures import Measures
from lmi.session.pump import Pump
from lmi.session.reader import Reader
from lmi.session.retired import Retired
from lmi.session.served import Accepted
from lmi.session.states import Health, State
from lmi.session.threads import in_thread

log = logging.getLogger("lmi.session")

# Ids are never used twice in a process, whichever session they belong to.
_ids = itertools.count(1)

_TICK = 1.0  # seconds between looks at the engine's progress and the queue's drain rate

Load = Callable[[Progress], Loaded]


class Session:
    """One model. Made and used on a running event loop."""

    def __init__(self, config: SessionConfig, load: Load) -> None:
        """load: loads the model; called in a worker thread, again for every restart."""
        self.config = config
        self.measures = Measures()
        self._load = load
        self._life = Life(config.model)
        self._pump: Pump | None = None
        self._adapters = AdapterDesk(config.predict_timeout)
        self._reader = Reader(config, self._adapters)
        self._retired = Retired()
        self._rate = DrainRate(time.monotonic())
        self._restarts = 0
        self._finished_before = 0  # by engines that are gone
        self._warm_up = parse(_warm_up_body(config.warm_up_prompt), {}, config.schema)

    # What callers see

    def start(self, progress: Progress = lambda phase, done, total: None) -> None:
        """Begin to load. progress: gets every phase, from any thread."""
        self._life.start(progress, self._first_load(), self._watch())

    async def ready(self) -> None:
        """Wait until the model answers; raises the load's error, or Unavailable, if it won't."""
        await self._life.ready()

    @property
    def name(self) -> str:
        """The model's name in paths and metrics."""
        return self.config.model

    @property
    def max_queue(self) -> int:
        """Requests that may wait beyond those that run."""
        return self.config.max_queue

    def health(self) -> Health:
        """The state now, with a phase or a reason for people."""
        return self._life.health()

    @property
    def info(self) -> EngineInfo | None:
        """The engine's fixed facts; None while there is no engine."""
        return None if self._pump is None else self._pump.engine.info

    def stats(self) -> EngineStats:
        """The engine's load now; empty while there is no engine."""
        return EngineStats() if self._pump is None else self._pump.stats()

    @property
    def held(self) -> int:
        """Requests that were accepted and have not ended."""
        return len(self._life.lives)

    def accept(self, call: Call, sink: Sink, /) -> Accepted:
        """Read a request, describe its answer to the sink and open it; raises as these do."""
        if self._life.state is not State.READY:  # a body is read against what is loaded
            raise self._life.unavailable()
        hooks = self._reader.hooks
        if hooks is not None and hooks.handles and self._pump is not None:
            admit(
                held=self.held,
                new=1,
                running=self._pump.engine.info.max_batch,
                max_queue=self.config.max_queue,
                rate=self._rate,
            )
            return HandledCall(hooks, call, sink, self._begin, self._life, self.measures)
        return self._begin(call, sink)

    def _begin(self, call: Call, sink: Sink) -> Live:
        """Give a call to the engine."""
        parsed, head = self._reader.read(call)
        sink.describe(head)
        return self.open(parsed, sink)

    def parse(
        self,
        body: bytes,
        headers: Mapping[str, str],
        route: Route = Route.INVOCATIONS,
        adapter: str | None = None,
    ) -> ParsedRequest:
        """Read a body in this model's dialect; raises BadPayload, UnknownModel.

        headers: lower-case names. adapter: the one that the query names.
        """
        return self._reader.parse(body, headers, route, adapter)

    def adapters(self) -> Mapping[str, Adapter]:
        """See `lmi.session.Adapters`."""
        return self._adapters.adapters()

    async def register_adapter(self, adapter: Adapter, /) -> None:
        """See `lmi.session.Adapters`."""
        await self._adapters.register(adapter)

    async def unregister_adapter(self, name: str, /) -> None:
        """See `lmi.session.Adapters`."""
        await self._adapters.unregister(name)

    def open(self, parsed: ParsedRequest, sink: Sink) -> Live:
        """Accept a request, or raise RequestError: then the sink is never called.

        Overloaded when the queue is full, Unavailable when the model isn't ready (both say when to
        try again), what the engine says otherwise.
        """
        if self._life.state is not State.READY or self._pump is None:
            raise self._life.unavailable()
        return self._open(self._pump, parsed, sink, self.measures)

    async def drain(self, grace: float) -> None:
        """Refuse new requests, let the live ones finish for `grace` seconds, end the others."""
        await self._life.drain(grace)

    async def close(self) -> None:
        """End everything and release the engine. Idempotent."""
        if not await self._life.close():
            return
        pump, self._pump = self._pump, None
        if pump is not None:
            self._retire(pump)
        await self._retired.wait()

    # A request's way in

    def _open(self, pump: Pump, parsed: ParsedRequest, sink: Sink, measures: Measures) -> Live:
        admit(
            held=len(pump.generations),
            new=len(parsed.inputs),
            running=pump.engine.info.max_batch,
            max_queue=self.config.max_queue,
            rate=self._rate,
        )
        live = Live(parsed.reply(), sink, measures, self._drop)
        live.ids = tuple(itertools.islice(_ids, len(parsed.inputs)))
        try:
            pump.submit(live, parsed.generations(live.ids))
        except EngineDead as error:
            raise self._life.unavailable() from error
        except LmiError:
            live.open = False
            pump.drop(live)
            raise
        self._life.begin(live)
        measures.accepted += 1
        return live

    def _drop(self, live: Live) -> None:
        self._life.finish(live)
        if self._pump is not None:
            self._pump.drop(live)

    # An engine's way through life

    async def _first_load(self) -> None:
        try:
            await self._bring_up()
        except LmiError as error:
            self._life.fail_for_good(error)

    async def _bring_up(self) -> None:
        """Load an engine, try it, and be ready."""
        loaded = await in_thread(
            lambda: self._load(self._life.report), unwanted=lambda it: it.engine.close()
        )
        pump = Pump(loaded.engine, self._died)
        self._pump = pump
        self._reader.chat, self._reader.hooks = loaded.chat, loaded.hooks
        try:
            await self._try(pump)
            if loaded.hooks is not None:
                await loaded.hooks.initialise()
        except LmiError:
            if self._pump is pump:  # else it died and is being closed
                self._pump = None
                self._retire(pump)
            await self._retired.wait()
            raise
        await self._adapters.attach(pump.engine)
        if self._pump is not pump:
            await self._retired.wait()
            raise EngineDead("the engine died while it was being prepared")
        if self._life.state in (State.LOADING, State.RESTARTING):
            self._life.enter(State.READY, "")

    async def _try(self, pump: Pump) -> None:
        """A real token through the whole path, or an error."""
        self._life.report("warming up", 0, 0)
        measures = Measures()  # its own: a warm-up is no client's request
        try:
            async with asyncio.timeout(self.config.predict_timeout):
                await collect(lambda sink: self._open(pump, self._warm_up, sink, measures))
        except TimeoutError:
            raise EngineDead(
                f"the warm-up brought no token in {self.config.predict_timeout:g} s"
            ) from None
        if not measures.completion_tokens:
            raise EngineDead("the warm-up ended without a token")

    def _died(self, error: EngineDead) -> None:
        """The engine is gone: everybody is told now, a new one comes in the background."""
        pump, self._pump = self._pump, None
        self.measures.engine_deaths += 1
        log.error("%s: the engine died: %s", self.config.model, error)
        was_ready = self._life.state is State.READY
        if was_ready:
            # At once, and not when the loop gets to it: no health check may see green from here on.
            self._life.enter(State.RESTARTING, str(error))
        if pump is not None:
            self._finished_before += pump.finished
        self._adapters.detach()
        self._life.fail_all(error)
        if pump is None:
            return
        self._retire(pump)
        if was_ready:
            self._life.spawn(self._restart())

    async def _restart(self) -> None:
        await self._retired.wait()  # a new engine needs the memory that the dead one held
        pause = self.config.restart_backoff
        while self._restarts < self.config.restart_limit and self._life.state is State.RESTARTING:
            self._restarts += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.config.restart_backoff_max)
            try:
                await self._bring_up()
            except LmiError as error:
                log.error("%s: restart %d failed: %s", self.config.model, self._restarts, error)
                self._life.reason = str(error)
            else:
                log.info("%s: the engine is back", self.config.model)
                self._life.spawn(self._forget_restarts(self._restarts))
                return
        if self._life.state is State.RESTARTING:
            self._life.enter(
                State.FAILED, f"given up after {self._restarts} restarts: {self._life.reason}"
            )

    async def _forget_restarts(self, restarts: int) -> None:
        """An engine that lives long enough has a clean record again."""
        await asyncio.sleep(self.config.restart_reset)
        if self._restarts == restarts and self._life.state is State.READY:
            self._restarts = 0

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(_TICK, self.config.predict_timeout / 4))
            if self._pump is not None:
                self._rate.update(self._finished_before + self._pump.finished, time.monotonic())
                self._pump.check_progress(self.config.predict_timeout)

    # Small parts

    def _retire(self, pump: Pump) -> None:
        pump.stop()
        self._retired.add(pump.engine)


def _warm_up_body(prompt: str) -> bytes:
    return orjson.dumps({"inputs": prompt, "parameters": {"max_new_tokens": 1}})
