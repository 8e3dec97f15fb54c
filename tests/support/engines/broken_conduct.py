"""Engines that treat a request or a caller wrongly, each in one way that a real one could."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lmi.core import (
    Delta,
    EngineDead,
    EngineStats,
    Finish,
    GenerationRequest,
    RequestError,
)
from lmi.engines.echo import EchoConfig
from tests.support.engines.sporadic import Sporadic
from tests.support.engines.wrapped import Faulty


class DependsOnItsCompany(Faulty):
    """A request beside others starts one token later, as a sampler with one common state would."""

    def submit(self, request: GenerationRequest, /) -> None:
        ids = request.prompt
        if self.inner.stats().running and isinstance(ids, tuple) and len(ids) > 1:
            request = replace(request, prompt=ids[1:] + ids[:1])
        super().submit(request)


class ForgetsSeeds(Sporadic):
    """Every request goes on where the one before it ended, whatever its seed."""

    def submit(self, request: GenerationRequest, /) -> None:
        ids = request.prompt
        if request.sampling.seed is not None and isinstance(ids, tuple) and ids:
            self._chances += 1
            place = self._chances % len(ids)
            request = replace(request, prompt=ids[place:] + ids[:place])
        super().submit(request)


class IgnoresCancel(Faulty):
    def cancel(self, request_id: int, /) -> None:
        """The request runs to its end."""


class CancelsOthers(Faulty):
    """Cancel ends the request that came next, as well."""

    def cancel(self, request_id: int, /) -> None:
        super().cancel(request_id)
        super().cancel(request_id + 1)


class CutsLongPrompts(Faulty):
    """What is too long is served without its beginning instead of being refused."""

    def submit(self, request: GenerationRequest, /) -> None:
        if isinstance(request.prompt, tuple):
            most = self.inner.info.max_model_len - 1
            request = replace(request, prompt=request.prompt[-most:])
        super().submit(request)


class AnswersWhatItRefused(Faulty):
    """Refuses, but keeps the request."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._refused: list[Delta] = []

    def submit(self, request: GenerationRequest, /) -> None:
        try:
            super().submit(request)
        except RequestError as error:
            self._refused.append(Delta(request.id, 0, (), Finish.ERROR, None, error))
            raise

    def change(self, deltas: list[Delta]) -> list[Delta]:
        refused, self._refused = self._refused, []
        return deltas + refused


class NeverWakes(Faulty):
    def on_ready(self, wake: Callable[[], None], /) -> None:
        """Nobody is ever told."""


class WakesOnce(Faulty):
    """Wakes for the first step only."""

    def on_ready(self, wake: Callable[[], None], /) -> None:
        wakes = [wake]
        super().on_ready(lambda: wakes.pop()() if wakes else None)


class IgnoresItsTimeout(Faulty):
    """An idle poll waits for as long as it likes."""

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        deltas = super().poll(timeout)
        if not deltas and not self.inner.stats().running:
            time.sleep(1.1)
        return deltas


class LeaksBlocks(Faulty):
    """Each cancel loses a KV block."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._lost = 0

    def cancel(self, request_id: int, /) -> None:
        super().cancel(request_id)
        self._lost += 1

    def stats(self) -> EngineStats:
        stats = super().stats()
        return replace(stats, kv_blocks_used=stats.kv_blocks_used + self._lost)


class ClosesOnlyOnce(Faulty):
    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._closed = 0

    def close(self) -> None:
        self._closed += 1
        super().close()
        if self._closed == 2:
            raise RuntimeError("closed already")


class DiesWithoutAWord(Sporadic):
    """Its thread is gone, its polls say nothing."""

    def kill(self) -> None:
        self._chances = -1

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        return super().poll(timeout) if self._chances >= 0 else []


class DiesWithoutWaking(DiesWithoutAWord):
    """A poll would say that it is dead, but nobody is told to poll."""

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        if self._chances < 0:
            raise EngineDead("gone")
        return super().poll(timeout)

    def on_ready(self, wake: Callable[[], None], /) -> None:
        super().on_ready(lambda: wake() if self._chances >= 0 else None)
