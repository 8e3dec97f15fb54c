"""Start-up phases for people: bars on a terminal, plain lines elsewhere.

Everything that takes longer than a moment reports `(phase, done, total)` from any thread; a total
of 0 means that the end is not known. A phase ends when another begins or when the reporter is
closed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger("lmi.start")

LINE_INTERVAL_SECONDS = (
    10.0  # a plain log needs to show that a long phase moves, not every step of it
)


class Reporter(Protocol):
    """Shows phases. `report` may be called from any thread; `close` ends the last phase."""

    def report(self, phase: str, done: int, total: int, /) -> None: ...
    def close(self) -> None: ...


def reporter() -> Reporter:
    """Bars if standard error is a terminal, else lines in the log."""
    return TerminalReporter() if sys.stderr.isatty() else LineReporter()


class LineReporter:
    """A line when a phase begins, one every ten seconds, and one with its time when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phase = ""
        self._started = 0.0
        self._said = 0.0

    def report(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        with self._lock:
            if phase != self._phase:
                self._end(now)
                self._phase, self._started, self._said = phase, now, now
                log.info("%s ...", phase)
            elif now - self._said >= LINE_INTERVAL_SECONDS:
                self._said = now
                share = f"{done / total:.0%}" if total else f"{now - self._started:.0f} s"
                log.info("%s: %s", phase, share)

    def close(self) -> None:
        with self._lock:
            self._end(time.monotonic())

    def _end(self, now: float) -> None:
        if self._phase:
            log.info("%s: done in %.1f s", self._phase, now - self._started)
        self._phase = ""


class TerminalReporter:
    """A bar per phase, with the time left where the total is known."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._lock = threading.Lock()
        self._phase = ""
        self._task: TaskID | None = None
        self._bars.start()

    def report(self, phase: str, done: int, total: int) -> None:
        with self._lock:
            if phase != self._phase:
                self._end()
                self._phase = phase
                self._task = self._bars.add_task(phase, total=total or None)
            if self._task is not None:
                self._bars.update(self._task, completed=done, total=total or None)

    def close(self) -> None:
        with self._lock:
            self._end()
            self._bars.stop()

    def _end(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, total=1, completed=1)
        self._task, self._phase = None, ""
