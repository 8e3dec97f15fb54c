"""LMI-Dist in the caller's own process: an `lmi.core.Engine` that does a step in each poll.

For offline use, tests and measurements. A server uses `lmi.dist.process.ProcessEngine`, which stays
responsive while the model computes and survives its death.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from lmi.core import (
    Adapter,
    Delta,
    EngineDead,
    EngineError,
    EngineInfo,
    EngineStats,
    GenerationRequest,
    RequestError,
    Sampling,
)
from lmi.dist import offline
from lmi.dist.config import DistConfig
from lmi.dist.front import Front
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.text import Tokenizer

Progress = Callable[[str, int, int], None]


class Core(Protocol):
    """What an engine needs of a core; `lmi.dist.core.EngineCore` is one."""

    @property
    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""

    def add(self, request: CoreRequest, /) -> None:
        """Queue a request, or raise RequestError."""

    def cancel(self, request_id: int, choice: int | None = None, /) -> None:
        """End a request, or one choice of it; an unknown one is ignored."""

    def step(self) -> list[CoreEvent]:
        """One forward pass. Raises EngineDead."""

    def stats(self) -> CoreStats:
        """The load and the counts; cheap."""

    def close(self) -> None:
        """Release everything. Idempotent."""


@runtime_checkable
class WakingCore(Protocol):
    """A core over a library that computes by itself: `step` hands out what has happened since."""

    def fileno(self) -> int:
        """A descriptor that is readable exactly while `has_work`."""


@runtime_checkable
class AdapterCore(Protocol):
    """A core that serves adapters too. Both may read files, so neither is quick."""

    def register_adapter(self, adapter: Adapter, /) -> None:
        """Register or replace one. Raises UnknownAdapter, BadPayload or OutOfMemory."""

    def unregister_adapter(self, name: str, /) -> None:
        """Forget one. Raises UnknownAdapter."""


def silent(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def engine_stats(stats: CoreStats) -> EngineStats:
    """The part of the core's counts that every engine has."""
    return EngineStats(
        running=stats.running,
        waiting=stats.waiting,
        kv_blocks_used=stats.kv_blocks_used,
        kv_blocks_total=stats.kv_blocks_total,
        preemptions=stats.preemptions,
    )


class Engine:
    """An `lmi.core.Engine` over a core in this process; as a context manager it closes itself.

    `generate` answers a list of prompts. For streaming and arrivals over time: `submit` requests
    and `poll` their deltas. With best_of above n, a request's deltas come all at its end.
    """

    def __init__(self, core: Core, tokenizer: Tokenizer) -> None:
        self._core = core
        self._front = Front(tokenizer, core.info)
        self._offline_ids = count(-1, -1)  # apart from the caller's own, which are not negative
        self._wake: Callable[[], None] = _nobody

    @classmethod
    def load(cls, config: DistConfig, progress: Progress = silent) -> Engine:
        """Load a model and its tokenizer. Raises ConfigError or ModelError; may take minutes."""
        from lmi.dist.any_core import make_core

        tokenizer = Tokenizer.load(config.model, trust_remote_code=config.trust_remote_code)
        return cls(make_core(config, progress), tokenizer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""
        return self._core.info

    def generate(
        self,
        prompts: Sequence[offline.Prompt],
        sampling: Sampling | Sequence[Sampling] = Sampling(),  # noqa: B008 - frozen
    ) -> list[offline.Answer]:
        """Answer prompts (texts or token ids), in their order; see `lmi.dist.offline.generate`.

        Raises EngineError while submitted requests are live, RequestError for a prompt that is
        refused, and EngineDead.
        """
        if len(self._front):
            raise EngineError(
                f"{len(self._front)} submitted requests are live: poll until they are over"
            )
        return offline.generate(self, prompts, sampling, self._offline_ids)

    def submit(self, request: GenerationRequest, /) -> None:
        """Accept a request, or raise RequestError."""
        core_request = self._front.open(request)
        try:
            self._core.add(core_request)
        except RequestError:
            self._front.forget(request.id)
            raise
        self._wake()

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        """Step until there are deltas or `timeout` seconds are over; at least one step.

        Without work it waits as long, since only the caller's own thread could bring some. Raises
        EngineDead.
        """
        until = time.monotonic() + timeout
        while self._core.has_work:
            deltas = self._step()
            if deltas or time.monotonic() >= until:
                if self._core.has_work:
                    self._wake()
                return deltas
        time.sleep(max(0.0, until - time.monotonic()))
        return ()

    def _step(self) -> list[Delta]:
        stopped: list[tuple[int, int]] = []
        deltas = self._front.translate(self._step_core(), stopped)
        for request_id, choice in stopped:
            self._core.cancel(request_id, choice)
        return deltas

    def _step_core(self) -> list[CoreEvent]:
        try:
            return self._core.step()
        except EngineDead:
            raise
        except Exception as error:  # the engine's loop: what the core did not foresee is its end
            raise EngineDead(f"LMI-Dist failed: {type(error).__name__}: {error}") from error

    def cancel(self, request_id: int, /) -> None:
        """Stop a request; its finish still comes."""
        self._core.cancel(request_id)
        self._wake()

    def on_ready(self, wake: Callable[[], None], /) -> None:
        """Register `wake`: called from `submit`, `cancel` and `poll` while a step is due."""
        self._wake = wake
        if self._core.has_work:
            wake()

    def stats(self) -> EngineStats:
        """The load now."""
        return engine_stats(self._core.stats())

    def close(self) -> None:
        """Drop the model and its cache. Idempotent."""
        self._core.close()


def _nobody() -> None:
    """Until `on_ready` there is nobody to wake."""
