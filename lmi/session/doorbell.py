"""News from any thread become one turn on the event loop, however often they are announced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger("lmi.session")


class Doorbell:
    """Made on a running event loop. turn: called on it; news that come meanwhile ring again."""

    __slots__ = ("_loop", "_rung", "_turn")

    def __init__(self, turn: Callable[[], None]) -> None:
        self._turn = turn
        self._rung = False
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Announce news; from any thread."""
        # Two threads may both see False here: the second turn then finds nothing: harmless.
        if not self._rung:
            self._rung = True
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                # The loop has been closed: the process is ending and nobody waits for news.
                log.debug("news came for a closed event loop")

    def _answer(self) -> None:
        # Before the turn: news that come during it must ring again.
        self._rung = False
        self._turn()
