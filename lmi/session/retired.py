"""Engines and functions on their way out: closed in threads, waited for within bounds."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from lmi.session.threads import in_thread

log = logging.getLogger("lmi.session")

# Seconds; an engine kills its own processes sooner than this. Past it a leak is better than a hang.
_PATIENCE = 60.0


class Closable(Protocol):
    """An engine or a function."""

    def close(self) -> None: ...


class Retired:
    """Closes engines and functions. A new engine needs the memory of the old one: hence
    `wait`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, engine: Closable) -> None:
        """Begin to close an engine; returns at once."""
        task = asyncio.get_running_loop().create_task(in_thread(engine.close))
        self._tasks.add(task)
        task.add_done_callback(self._closed)

    async def wait(self) -> None:
        """Wait until all are closed, or until waiting has no more point."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=_PATIENCE)
            for _ in late:
                log.error("an engine was not closed within %g s", _PATIENCE)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an engine could not be closed", exc_info=error)
