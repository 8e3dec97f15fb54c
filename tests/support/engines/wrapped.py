"""An engine around the echo engine: the base of those that change something on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lmi.core import Delta, EngineInfo, EngineStats, GenerationRequest
from lmi.engines.echo import EchoConfig, EchoEngine


class Wrapped:
    """Passes every call on to an `EchoEngine`; changes nothing."""

    def __init__(self, config: EchoConfig) -> None:
        self.inner = EchoEngine(config)

    @property
    def info(self) -> EngineInfo:
        return self.inner.info

    def submit(self, request: GenerationRequest, /) -> None:
        self.inner.submit(request)

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        return self.inner.poll(timeout)

    def cancel(self, request_id: int, /) -> None:
        self.inner.cancel(request_id)

    def on_ready(self, wake: Callable[[], None], /) -> None:
        self.inner.on_ready(wake)

    def stats(self) -> EngineStats:
        return self.inner.stats()

    def close(self) -> None:
        self.inner.close()


class Faulty(Wrapped):
    """Changes what a poll says."""

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        return self.change(list(self.inner.poll(timeout)))

    def change(self, deltas: list[Delta]) -> list[Delta]:
        return deltas
