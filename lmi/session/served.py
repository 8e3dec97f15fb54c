"""What a front needs of a model, be it an engine's session or a function's."""

from __future__ import annotations

from typing import Protocol

from lmi.core import Call, EngineInfo, EngineStats, FunctionInfo, FunctionStats
from lmi.session.config import Progress
from lmi.session.live import Sink
from lmi.session.measures import Measures
from lmi.session.states import Health


class Accepted(Protocol):
    """A request that was accepted."""

    @property
    def open(self) -> bool:
        """Whether it has not ended."""

    def cancel(self) -> None:
        """The client left. Does nothing to a request that is over."""


class Served(Protocol):
    """One model, supervised. Made and used on a running event loop."""

    measures: Measures

    @property
    def name(self) -> str:
        """The model's name in paths and metrics."""

    @property
    def max_queue(self) -> int:
        """Requests that may wait beyond those that run."""

    def start(self, progress: Progress = ...) -> None:
        """Begin to load."""

    async def ready(self) -> None:
        """Wait until the model answers; raises the load's error, or Unavailable, if it won't."""

    def health(self) -> Health:
        """The state now, with a phase or a reason for people."""

    @property
    def info(self) -> EngineInfo | FunctionInfo | None:
        """Fixed facts of what is loaded; None while nothing is."""

    def stats(self) -> EngineStats | FunctionStats:
        """The load now."""

    @property
    def held(self) -> int:
        """Requests that were accepted and have not ended."""

    def accept(self, call: Call, sink: Sink, /) -> Accepted:
        """Take a request in, or raise RequestError: then the sink is never called."""

    async def drain(self, grace: float) -> None:
        """Refuse new requests, let the live ones finish for `grace` seconds, end the others."""

    async def close(self) -> None:
        """End everything and release what was loaded. Idempotent."""
