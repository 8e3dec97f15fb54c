"""One open call of a function: where its bytes go, and that it ends exactly once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lmi.core import LmiError, Piece
from lmi.schemas import error_body
from lmi.session.live import Sink
from lmi.session.measures import Measures

log = logging.getLogger("lmi.session")

_FIRST_ERROR = 400  # statuses from here on count as errors


class FunctionCall:
    """A call that was accepted and has not ended. Made by `FunctionSession.accept`.

    An error after the first byte is a line of JSON, `{"code":424,"error":"..."}`, or an event of
    that in an event stream: the answer's form is the handler's, and nothing else is known of it.
    """

    __slots__ = ("_arrived", "_drop", "_events", "_failed", "_measures", "_out", "_sink", "id",
                 "open", "started")  # fmt: skip

    def __init__(
        self,
        number: int,
        sink: Sink,
        measures: Measures,
        drop: Callable[[FunctionCall], None],
    ) -> None:
        """drop: called once, at the end."""
        self.id = number
        self.open = True
        self.started = False  # whether the head is out
        self._sink = sink
        self._measures = measures
        self._drop = drop
        self._arrived = time.monotonic()
        self._events = False  # whether the answer is an event stream
        self._failed = False
        self._out: list[bytes] = []

    def feed(self, piece: Piece) -> None:
        """Take a piece in; what it releases waits for `flush`, unless it is the last."""
        if not self.open:
            return
        if piece.error is not None:
            self.fail(piece.error)
            return
        if piece.head is not None:
            self.started = True
            self._failed = piece.head.status >= _FIRST_ERROR
            self._events = (
                dict(piece.head.headers).get("content-type", "").startswith("text/event-stream")
            )
            head = piece.head
            self._deliver(lambda: self._sink.describe(head))
        if piece.data:
            self._out.append(piece.data)
        if piece.last:
            self._end("error" if self._failed else "ok")
            self._write(last=True)

    def flush(self) -> None:
        """Hand on what this turn released: one write, however many pieces it had."""
        if self.open and self._out:
            self._write(last=False)

    def fail(self, error: LmiError) -> None:
        """End with an error: the answer itself before the head, a line in the stream after it."""
        if not self.open:
            return
        self._end("error")
        if self.started:
            body = error_body(error)
            self._out.append(b"data: " + body + b"\n\n" if self._events else body + b"\n")
            self._write(last=True)
        else:
            self._deliver(lambda: self._sink.fail(error))

    def cancel(self) -> None:
        """The client left: nobody is told. Does nothing to a call that is over."""
        if self.open:
            self._end("cancelled")

    def _end(self, outcome: str) -> None:
        self.open = False
        self._measures.outcomes[outcome] += 1
        if outcome != "cancelled":
            self._measures.duration.observe(time.monotonic() - self._arrived)
        self._drop(self)

    def _write(self, last: bool) -> None:
        data = b"".join(self._out)
        self._out.clear()
        self._deliver(lambda: self._sink.write(data, last))

    def _deliver(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            # A front's fault harms its own request only: the loop serves all others.
            log.exception("a reply could not be delivered")
            self.cancel()
