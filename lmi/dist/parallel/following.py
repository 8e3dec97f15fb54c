"""A follower's life: hear a turn, do the same as rank 0, and again."""

from __future__ import annotations

from lmi.core import EngineDead, EngineError, RequestError
from lmi.dist.engine import Core
from lmi.dist.parallel.line import Line
from lmi.dist.parallel.turns import decode_turn
from lmi.dist.wire import Cancel, Close, Submit


class Follower:
    """The core of a rank that only rank 0 speaks to. What it computes, it tells nobody."""

    def __init__(self, core: Core, line: Line) -> None:
        self._core = core
        self._line = line

    def run(self) -> None:
        """Follow until rank 0 says that it is over.

        Raises EngineDead when rank 0 is gone, when it has been silent for longer than the
        collective time-out, or when this rank can't do what rank 0 did.
        """
        while True:
            turn = decode_turn(self._line.broadcast(None))
            for event in turn.events:
                match event:
                    case Submit():
                        self._add(event)
                    case Cancel(request_id, choice):
                        self._core.cancel(request_id, choice)
                    case Close():
                        return
            if turn.step:
                self._core.step()

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._core.close()
        self._line.close()

    def _add(self, event: Submit) -> None:
        try:
            self._core.add(event.request)
        except (RequestError, EngineError) as error:
            raise EngineDead(f"a request that rank 0 took is refused here: {error}") from error
