"""Rank 0's core: what reaches it reaches every rank, in the same order."""

from __future__ import annotations

import logging

from lmi.core import EngineDead, EngineInfo
from lmi.dist.engine import Core
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.dist.parallel.line import Line
from lmi.dist.parallel.turns import Event, encode_turn
from lmi.dist.wire import Cancel, Close, Submit

log = logging.getLogger(__name__)


class LeadingCore:
    """A `Core` over this rank's own. A request that it refuses never travels.

    Between two steps nothing depends on the order of ranks, so this rank's core is told at once,
    and the followers' with the next turn.
    """

    def __init__(self, core: Core, line: Line) -> None:
        self._core = core
        self._line = line
        self._events: list[Event] = []  # since the last turn
        self._together = True  # the followers wait for a turn, not in the middle of one

    @property
    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""
        return self._core.info

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self._core.has_work

    def add(self, request: CoreRequest, /) -> None:
        """Queue a request, or raise RequestError."""
        self._core.add(request)
        self._events.append(Submit(request))

    def cancel(self, request_id: int, /) -> None:
        """End a request; an unknown one is ignored."""
        self._core.cancel(request_id)
        self._events.append(Cancel(request_id))

    def step(self) -> list[CoreEvent]:
        """One turn of all ranks; without work it only tells the followers that rank 0 lives.

        Raises EngineDead, also where a follower is gone or hangs.
        """
        self._together = False
        events, self._events = self._events, []
        self._line.broadcast(encode_turn(events))
        news = self._core.step() if self._core.has_work else []
        self._together = True
        return news

    def stats(self) -> CoreStats:
        """The load and the counts of this rank; all ranks have the same."""
        return self._core.stats()

    def close(self) -> None:
        """Release the followers, if they can still be spoken to, and everything else."""
        if self._together:
            self._together = False
            try:
                self._line.broadcast(encode_turn([*self._events, Close()]))
            except EngineDead as error:
                log.info("the followers can't be told to end: %s", error)
        self._core.close()
        self._line.close()
