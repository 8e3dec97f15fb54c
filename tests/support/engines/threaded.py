"""An engine that drives itself: a thread makes the steps, pushes deltas into a queue and wakes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from lmi.core import Delta, EngineDead, EngineInfo, EngineStats, GenerationRequest
from lmi.engines.echo import EchoConfig, EchoEngine

JOIN_SECONDS = 5.0


class ThreadedEngine:
    """The echo engine, stepped by a thread. `die` ends it as a crash would."""

    def __init__(self, config: EchoConfig) -> None:
        self._inner = EchoEngine(config)
        self._changed = threading.Condition()
        self._deltas: list[Delta] = []
        self._dead: EngineDead | None = None
        self._closed = False
        self._wake: Callable[[], None] | None = None
        self._step_is_due = False
        self._inner.on_ready(self._note)
        self._thread = threading.Thread(target=self._run, name="threaded-engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    def submit(self, request: GenerationRequest, /) -> None:
        with self._changed:
            self._inner.submit(request)

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._deltas and self._dead is None:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    break
            out, self._deltas = self._deltas, []
            if not out and self._dead is not None:
                raise self._dead
            return out

    def cancel(self, request_id: int, /) -> None:
        with self._changed:
            self._inner.cancel(request_id)

    def on_ready(self, wake: Callable[[], None], /) -> None:
        with self._changed:
            self._wake = wake
            if self._deltas or self._dead:
                wake()

    def stats(self) -> EngineStats:
        with self._changed:
            return self._inner.stats()

    def die(self) -> None:
        """The thread ends now; whatever was live has no finish."""
        with self._changed:
            self._dead = EngineDead("the threaded engine's thread ended")
            self._changed.notify_all()
            if self._wake is not None:
                self._wake()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(JOIN_SECONDS)
        self._inner.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._step_is_due or self._over)
                if self._over:
                    return
                self._step_is_due = False
                self._deltas += self._inner.poll(0)
                self._changed.notify_all()
                if self._deltas and self._wake is not None:
                    self._wake()

    @property
    def _over(self) -> bool:
        return self._closed or self._dead is not None

    def _note(self) -> None:
        """The echo engine has a step to make; called by its own calls or by its alarm."""
        with self._changed:
            self._step_is_due = True
            self._changed.notify_all()
