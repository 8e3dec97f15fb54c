"""An alarm clock: calls back from its own thread when a time has come. One time at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

# `close` waits so long for the thread; longer means that the callback itself hangs.
_JOIN_SECONDS: Final = 5.0


class Alarm:
    """Its thread starts with the first `set`, so an alarm that is never set costs nothing."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._due: float | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def set(self, due: float) -> None:
        """Ring once at `due` (of `time.monotonic`) and not at the time that was set before."""
        with self._changed:
            self._due = due
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="echo-alarm", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """No ring begins after this. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while self._next_is_due():
            self._ring()

    def _next_is_due(self) -> bool:
        """Wait for the time to come; False when the alarm was closed instead."""
        with self._changed:
            while not self._closed:
                if self._due is None:
                    self._changed.wait()
                    continue
                left = self._due - time.monotonic()
                if left <= 0:
                    self._due = None
                    return True
                self._changed.wait(left)
            return False
