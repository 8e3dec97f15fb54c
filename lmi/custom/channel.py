"""A worker's end of the socket to the front, for a worker that does one thing at a time."""

from __future__ import annotations

import select
import socket
from typing import Final

from lmi.custom.messages import FromFront, FromWorker, decode_from_front, frame
from lmi.ipc.framing import Deframer

_RECEIVE_BYTES: Final = 1 << 18


class Channel:
    """Messages out and in. Raises ConnectionError when the front is gone."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._deframer = Deframer()

    def send(self, message: FromWorker) -> None:
        """Send one message; waits while the front does not read."""
        self._link.sendall(frame(message))

    def waiting(self) -> list[FromFront]:
        """The messages that are here, without waiting."""
        messages: list[FromFront] = []
        while True:
            try:
                data = self._link.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            if not data:
                raise ConnectionResetError("the front is gone")
            messages += map(decode_from_front, self._deframer.feed(data))

    def next(self) -> list[FromFront]:
        """Wait for messages; at least one."""
        messages: list[FromFront] = []
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        while not messages:
            poll.poll()
            messages += self.waiting()
        return messages
