"""One request at a time: plain replies, and streams for what comes in pieces.

A reply over the field limit goes as a stream as well: its bytes are the same for an HTTP client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lmi.core import Call, Head, LmiError
from lmi.djl import outcome
from lmi.djl.channel import Channel
from lmi.djl.encode import STREAM_END, Encoder
from lmi.schemas import error_body
from lmi.session import Accepted, Served


class Single:
    """A sink that writes its answer as it comes. `done` is set with the last byte but the end's."""

    def __init__(self, encoder: Encoder, write: Callable[[bytes], None]) -> None:
        self._encoder = encoder
        self._write = write
        self._head = Head()
        self.streams = False
        self.done = asyncio.Event()

    def describe(self, head: Head) -> None:
        self._head = head

    def write(self, data: bytes, last: bool) -> None:
        if not self.streams and last and len(data) <= self._encoder.field_limit:
            self._whole(data)
        else:
            self._piece(data)
        if last:
            self.done.set()

    def fail(self, error: LmiError) -> None:
        if self.streams:
            self._piece(error_body(error))
        else:
            status = outcome.status(error)
            self._write(
                self._encoder.reply(
                    status,
                    outcome.phrase(status),
                    [("Content-Type", "application/json"), *outcome.error_headers(error)],
                    [("data", error_body(error))],
                )
            )
        self.done.set()

    def _whole(self, data: bytes) -> None:
        head = self._head
        if head.status == 204 and not data:
            self._write(self._encoder.reply(204, outcome.NO_CONTENT, outcome.headers(head)))
            return
        self._write(
            self._encoder.reply(
                head.status, outcome.reason(head), outcome.headers(head), [("data", data)]
            )
        )

    def _piece(self, data: bytes) -> None:
        start = b""
        if not self.streams:
            self.streams = True
            head = self._head
            start = self._encoder.stream_head(
                head.status, outcome.reason(head), outcome.headers(head)
            )
        if start or data:
            self._write(start + self._encoder.stream_frames(data))


class SingleLoop:
    """Answers one request; the next one waits."""

    def __init__(self, served: Served, encoder: Encoder, channel: Channel) -> None:
        self._served = served
        self._encoder = encoder
        self._channel = channel
        self._accepted: Accepted | None = None

    async def answer(self, call: Call) -> None:
        """Send the whole answer."""
        sink = Single(self._encoder, self._channel.write)
        try:
            self._accepted = self._served.accept(call, sink)
        except LmiError as error:
            sink.fail(error)
        await sink.done.wait()
        self._accepted = None
        if sink.streams:
            await self._channel.read_by_peer()
            self._channel.write(STREAM_END)

    def forget(self) -> None:
        """Cancel the request: Java is gone."""
        if self._accepted is not None:
            self._accepted.cancel()
