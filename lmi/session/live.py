"""One open request: its formatter, where its bytes go, and that it ends exactly once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from lmi.core import Delta, EngineError, Head, LmiError
from lmi.schemas import Reply
from lmi.session.measures import Measures

log = logging.getLogger("lmi.session")


class Sink(Protocol):
    """Where an answer goes. Called on the session's thread; must return at once.

    `describe` once, before the first write; then any number of writes, the last one with `last`; or
    one `fail` in place of the first write, which no `describe` needs to precede.
    """

    def describe(self, head: Head, /) -> None: ...
    def write(self, data: bytes, last: bool, /) -> None: ...
    def fail(self, error: LmiError, /) -> None: ...


class Live:
    """A request that was accepted and has not ended. Made by `Session.open`."""

    __slots__ = (
        "_arrived",
        "_drop",
        "_last_token",
        "_measures",
        "_out",
        "_reply",
        "_sink",
        "ids",
        "open",
    )

    def __init__(
        self,
        reply: Reply,
        sink: Sink,
        measures: Measures,
        drop: Callable[[Live], None],
    ) -> None:
        """drop: cancel those of its generations that still run."""
        self._reply = reply
        self._sink = sink
        self._measures = measures
        self._drop = drop
        self._out: list[bytes] = []
        self._arrived = time.monotonic()
        self._last_token = 0.0
        self.open = True
        self.ids: tuple[int, ...] = ()  # of its generations, in the order of the inputs

    def feed(self, delta: Delta, position: int) -> None:
        """Format a delta; what it releases waits for `flush`. Whatever goes wrong ends this one.

        position: which of the request's inputs the delta belongs to.
        """
        if delta.finish is not None and delta.usage is not None:
            self._measures.prompt_tokens += delta.usage.prompt_tokens
        self._measures.completion_tokens += len(delta.tokens)
        if not self.open:
            return
        try:
            data = self._reply.feed(delta, position)
        except LmiError as error:
            self._finish("error", error)
        except Exception as error:
            # A fault of a formatter harms its own request only: the loop serves all others.
            log.exception("formatting a reply failed")
            self.fail(EngineError(f"the reply could not be formatted ({type(error).__name__})"))
        else:
            if data:
                self._out.append(data)

    def flush(self, now: float) -> None:
        """Hand on what this step released: one write, however many tokens it had."""
        if not self.open:
            return
        self._time(now)
        if self._reply.done:
            self._finish("ok", None)
        elif self._out:
            self._emit(last=False)

    def fail(self, error: LmiError) -> None:
        """End with an error: a status before the first byte, an event in the stream after it."""
        if not self.open:
            return
        try:
            self._out.append(self._reply.fail(error))
        except LmiError as unsent:
            self._finish("error", unsent)
        else:
            self._finish("error", None)

    def cancel(self) -> None:
        """The client left: stop generating, tell nobody. Does nothing to a request that is over."""
        if self.open:
            self.open = False
            self._measures.outcomes["cancelled"] += 1
            self._drop(self)

    def _finish(self, outcome: str, error: LmiError | None) -> None:
        self.open = False
        self._measures.outcomes[outcome] += 1
        self._measures.duration.observe(time.monotonic() - self._arrived)
        self._drop(self)
        if error is None:
            self._emit(last=True)
        else:
            try:
                self._sink.fail(error)
            except Exception:
                self._undelivered()

    def _emit(self, last: bool) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            self._sink.write(data, last)
        except Exception:
            self._undelivered()

    def _undelivered(self) -> None:
        # A front's fault harms its own request only: the loop serves all others.
        log.exception("a reply could not be delivered")
        self.cancel()

    def _time(self, now: float) -> None:
        if self._last_token:
            self._measures.inter_token.observe(now - self._last_token)
        else:
            self._measures.first_token.observe(now - self._arrived)
        self._last_token = now
