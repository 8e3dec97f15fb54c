"""The connection's two directions: bytes in become messages, bytes out wait for Java to read."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import termios
import time
from collections.abc import Callable
from struct import Struct
from typing import Final, cast

from lmi.djl.decode import Decoder
from lmi.djl.wire import Message, ProtocolError

log = logging.getLogger("lmi.djl")

_HIGH_WATER: Final = 1024 * 1024  # bytes that wait for Java before streams hold theirs back
_INT: Final = Struct("i").unpack
# Seconds between looks at what Java has not read: the first, and the longest.
_GLANCE: Final = 0.0002
_LONG_GLANCE: Final = 0.01
_GLANCES: Final = 10.0  # seconds of looking; a reader that is slower gets the stream's end anyway


class Channel(asyncio.Protocol):
    """One connection of Java's.

    on_message: called with each message, in order. on_gone: called once when nothing more can come,
    with True where Java's bytes were no messages.
    """

    def __init__(
        self, on_message: Callable[[Message], None], on_gone: Callable[[bool], None]
    ) -> None:
        self.decoder = Decoder()
        self.writable = True
        self._on_message = on_message
        self._on_gone = on_gone
        self._resume: Callable[[], None] = lambda: None
        self._transport: asyncio.Transport | None = None
        self._gone = False

    def on_writable(self, resume: Callable[[], None]) -> None:
        """Have `resume` called when Java reads again."""
        self._resume = resume

    def write(self, data: bytes) -> None:
        """Send; what goes to a Java that has left is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def read_by_peer(self) -> None:
        """Wait until Java has read all that was written, as far as the kernel knows.

        On a unix socket that is exact; over TCP bytes that were acknowledged count as read.
        """
        transport = self._transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        deadline = time.monotonic() + _GLANCES
        pause = _GLANCE
        await asyncio.sleep(0)  # the loop writes at the end of a turn
        while not transport.is_closing() and time.monotonic() < deadline:
            if not transport.get_write_buffer_size() and not _unread(sock):
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONG_GLANCE)

    def close(self) -> None:
        """Close when what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self.decoder.feed(data):
                self._on_message(message)
        except ProtocolError as error:
            log.error("what came from the model server is no message of its protocol: %s", error)
            self._leave(True)

    def eof_received(self) -> None:
        self._leave(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave(False)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._resume()

    def _leave(self, garbage: bool) -> None:
        if not self._gone:
            self._gone = True
            self.close()
            self._on_gone(garbage)


def _unread(sock: socket.socket) -> int:
    """Bytes in the kernel that the other side has not read."""
    try:
        return cast("int", _INT(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0  # the socket is gone, and nobody reads any more
