"""Rank 0's core: what reaches it reaches every rank, in the same order."""

from __future__ import annotations

import logging
from typing import Final

from lmi.core import EngineDead, EngineInfo
from lmi.dist.engine import Core
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.dist.parallel.line import Line
from lmi.dist.parallel.turns import Event, Turn, encode_turn
from lmi.dist.wire import Cancel, Close, Submit

log = logging.getLogger(__name__)

_BEAT: Final = encode_turn(Turn(step=False))


class LeadingCore:
    """A `Core` over this rank's own. A request that it refuses never travels.

    Between two steps nothing depends on the order of ranks, so this rank's core is told at once,
    and the followers' with the next turn.
    """

    def __init__(self, core: Core, line: Line) -> None:
        self._core = core
        self._line = line
        self._events: list[Event] = []  # since the last turn
        self._between_turns = True  # the followers wait for one

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

    def cancel(self, request_id: int, choice: int | None = None, /) -> None:
        """End a request, or one choice of it; an unknown one is ignored."""
        self._core.cancel(request_id, choice)
        self._events.append(Cancel(request_id, choice))

    def step(self) -> list[CoreEvent]:
        """One step of all ranks. Raises EngineDead, also where a follower is gone or hangs."""
        self._between_turns = False
        self._line.broadcast(encode_turn(Turn(step=True, events=self._events)))
        self._events = []
        news = self._core.step()
        self._between_turns = True
        return news

    def beat(self) -> None:
        """Tell the followers, who wait, that this rank lives. Raises EngineDead."""
        self._between_turns = False
        self._line.broadcast(_BEAT)
        self._between_turns = True

    def stats(self) -> CoreStats:
        """The load and the counts; all ranks have the same."""
        return self._core.stats()

    def close(self) -> None:
        """Release the followers, if they can still be spoken to, and everything else. Idempotent.

        After a failure in the middle of a turn they can't: they wait for something else.
        """
        if self._between_turns:
            self._between_turns = False
            try:
                self._line.broadcast(encode_turn(Turn(step=False, events=[Close()])))
            except EngineDead as error:
                log.info("the followers can't be told to end: %s", error)
        self._core.close()
        self._line.close()
