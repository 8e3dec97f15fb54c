"""A worker's end of the socket to the front."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from lmi.dist.wire import FromFront, FromWorker, decode_from_front, frame
from lmi.ipc.framing import Deframer

_RECEIVE_BYTES: Final = 1 << 18


class Channel:
    """Messages out and in. Raises ConnectionError when the other end is gone."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._deframer = Deframer()
        self._meanwhile: Callable[[], None] = _nothing
        self._patience_ms: float | None = None

    def while_waiting(self, act: Callable[[], None], every: float) -> None:
        """From now on call `act` each time that waiting for the front has lasted `every` seconds,
        be it for its messages or until it reads ours."""
        self._meanwhile, self._patience_ms = act, every * 1000

    def send(self, message: FromWorker) -> None:
        """Send one message; waits while the front does not read."""
        view = memoryview(frame(message))
        while view:
            try:
                view = view[self._link.send(view, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def waiting(self) -> list[FromFront]:
        """The messages that are here, without waiting."""
        messages: list[FromFront] = []
        while True:
            try:
                data = self._link.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            messages += self._messages(data)
            if len(data) < _RECEIVE_BYTES:
                return messages

    def next(self, or_readable: int | None = None) -> list[FromFront]:
        """Wait for messages; at least one, unless this other descriptor is readable before."""
        while True:
            ready = self._wait(select.POLLIN, or_readable)
            messages = self.waiting()
            if messages or or_readable in ready:
                return messages

    def await_end(self, seconds: float) -> None:
        """Wait until the front hangs up, but no longer than `seconds`; what it says is lost."""
        until = time.monotonic() + seconds
        with suppress(OSError):  # reset, or silent for too long: the end as well
            while (left := until - time.monotonic()) > 0:
                self._link.settimeout(left)
                if not self._link.recv(_RECEIVE_BYTES):
                    return

    def _wait(self, events: int, or_readable: int | None = None) -> list[int]:
        """The descriptors that are ready: the link's, the other one's or both."""
        poll = select.poll()
        poll.register(self._link, events)
        if or_readable is not None:
            poll.register(or_readable, select.POLLIN)
        while not (ready := poll.poll(self._patience_ms)):
            self._meanwhile()
        return [descriptor for descriptor, _ in ready]

    def _messages(self, data: bytes) -> Iterable[FromFront]:
        if not data:
            raise ConnectionResetError("the front is gone")
        return map(decode_from_front, self._deframer.feed(data))


def _nothing() -> None:
    """What a worker without followers does while it waits."""
