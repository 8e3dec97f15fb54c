"""One engine's life: its generations, from submit to their last delta.

The engine wakes us once per step, from any thread; all wakes until the next turn of the loop are
one. A turn polls once, feeds every delta to its request and then flushes each request once. A pump
ends with its engine: `on_death` is called once, and nothing comes after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from lmi.core import Delta, Engine, EngineDead, EngineStats, GenerationRequest
from lmi.session.doorbell import Doorbell
from lmi.session.live import Live

log = logging.getLogger("lmi.session")


class Generation:
    """One of a request's generations. open: choices that have not finished."""

    __slots__ = ("live", "open", "position")

    def __init__(self, live: Live, position: int, choices: int) -> None:
        self.live = live
        self.position = position
        self.open = choices


class Pump:
    """Drives an engine on the running event loop. All methods are for the loop's thread."""

    def __init__(self, engine: Engine, on_death: Callable[[EngineDead], None]) -> None:
        self.engine = engine
        self.generations: dict[int, Generation] = {}
        self.finished = 0  # generations; their rate tells how fast a queue drains
        self.last_progress = time.monotonic()
        self._on_death = on_death
        self._dead = False
        engine.on_ready(Doorbell(self._turn).ring)

    def submit(self, live: Live, requests: Sequence[GenerationRequest]) -> None:
        """Give a request's generations to the engine: all of them, or raise RequestError."""
        if not self.generations:
            self.last_progress = time.monotonic()  # an idle engine owes nothing
        for position, request in enumerate(requests):
            try:
                self.engine.submit(request)
            except EngineDead as error:
                self.die(error)
                raise
            self.generations[request.id] = Generation(live, position, request.sampling.n)

    def drop(self, live: Live) -> None:
        """Stop those generations of a request that still run. Their last deltas go nowhere."""
        for number in live.ids:
            if self._dead or number not in self.generations:
                continue
            try:
                self.engine.cancel(number)
            except EngineDead as error:
                self.die(error)

    def stats(self) -> EngineStats:
        """The engine's load; empty when it is gone."""
        return EngineStats() if self._dead else self.engine.stats()

    def check_progress(self, timeout: float) -> None:
        """Declare the engine hung if it owes tokens and has brought none for `timeout` seconds."""
        if self.generations and time.monotonic() - self.last_progress > timeout:
            self.die(EngineDead(f"no token for {timeout:g} s although requests were running"))

    def die(self, error: EngineDead) -> None:
        """The engine is gone: said once."""
        if not self._dead:
            self._dead = True
            self._on_death(error)

    def stop(self) -> None:
        """Listen no more; the engine is about to be closed on purpose."""
        self._dead = True

    def _turn(self) -> None:
        if self._dead:
            return
        try:
            deltas = self.engine.poll(0.0)
        except EngineDead as error:
            self.die(error)
            return
        except Exception as error:
            log.exception("the engine's poll failed")
            self.die(EngineDead(f"the engine failed: {type(error).__name__}: {error}"))
            return
        if deltas:
            self._dispatch(deltas)

    def _dispatch(self, deltas: Sequence[Delta]) -> None:
        now = self.last_progress = time.monotonic()
        generations = self.generations
        touched: dict[Live, None] = {}
        for delta in deltas:
            generation = generations.get(delta.request_id)
            if generation is None:
                continue
            if delta.finish is not None:
                # Before the request is fed: when it ends, nothing of it is left to cancel.
                generation.open -= 1
                if not generation.open:
                    del generations[delta.request_id]
                    self.finished += 1
            live = generation.live
            live.feed(delta, generation.position)
            touched[live] = None
        for live in touched:
            live.flush(now)
