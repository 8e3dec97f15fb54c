"""A model in the hands of a test: what is accepted is kept, and the test says the answers."""

from __future__ import annotations

from collections.abc import Callable

from lmi.core import Call, EngineStats, FunctionInfo, LmiError
from lmi.session import Health, Measures, Sink, State
from lmi.session.config import Progress


class Opened:
    """A request that was accepted. The test writes to its sink."""

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self.sink = sink
        self.open = True
        self.cancelled = False

    def cancel(self) -> None:
        if self.open:
            self.open = False
            self.cancelled = True

    def say(self, data: bytes, last: bool = False) -> None:
        assert self.open, "an answer goes on after its end"
        self.open = not last
        self.sink.write(data, last)

    def fail(self, error: LmiError) -> None:
        assert self.open, "an answer goes on after its end"
        self.open = False
        self.sink.fail(error)


class ScriptedServed:
    """A `Served`. on_accept: called with each request; it may answer at once, or raise."""

    def __init__(self, on_accept: Callable[[Opened], None] = lambda opened: None) -> None:
        self.measures = Measures()
        self.name = "m"
        self.max_queue = 10
        self.info = FunctionInfo("scripted", 1, 1)
        self.opened: list[Opened] = []
        self.on_accept = on_accept
        self.closed = 0
        self.now = Health(State.READY)

    def start(self, progress: Progress = lambda phase, done, total: None) -> None:
        """It needs no loading."""

    async def ready(self) -> None:
        """It is."""

    def health(self) -> Health:
        return self.now

    def stats(self) -> EngineStats:
        return EngineStats(running=self.held)

    @property
    def held(self) -> int:
        return sum(opened.open for opened in self.opened)

    def accept(self, call: Call, sink: Sink, /) -> Opened:
        opened = Opened(call, sink)
        self.on_accept(opened)
        self.opened.append(opened)
        return opened

    async def drain(self, grace: float) -> None:
        """Nothing to wait for."""

    async def close(self) -> None:
        self.closed += 1
