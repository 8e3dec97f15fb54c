"""A request or an answer on a blocking socket, for users' own tools.

`Input.read` and `Output.send` are part of the interface that scripts know; the fronts of `lmi` use
neither. Big-endian: counts and codes of 16 bits, lengths of 32 bits, a negative length is None.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from lmi.custom.api.payload import Buffer

STREAM = -1  # in place of a count: frames follow
MORE, END = b"\x01", b"\x00" + bytes(4)


def read_exactly(connection: socket.socket, length: int) -> bytearray:
    """So many bytes; raises ConnectionError when the peer closes first."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise ConnectionError(f"the connection was closed, {len(view)} bytes before an end")
        view = view[count:]
    return data


def read_short(connection: socket.socket) -> int:
    """A signed integer of 16 bits."""
    return int.from_bytes(read_exactly(connection, 2), signed=True)


def read_int(connection: socket.socket) -> int:
    """A signed integer of 32 bits."""
    return int.from_bytes(read_exactly(connection, 4), signed=True)


def read_text(connection: socket.socket) -> str | None:
    """A text, or None."""
    length = read_int(connection)
    return None if length < 0 else read_exactly(connection, length).decode()


def text(value: str | None) -> bytes:
    """A text or None, with its length before it."""
    return struct.pack(">i", -1) if value is None else blob(value.encode())


def blob(value: Buffer) -> bytes:
    """Bytes with their length before them."""
    return struct.pack(">i", len(value)) + value


def short(value: int) -> bytes:
    """A signed integer of 16 bits."""
    return struct.pack(">h", value)


def send_stream(connection: socket.socket, chunks: Iterable[Buffer]) -> None:
    """Frames of a stream. Its end carries no data: Java's parser breaks on an end that does."""
    for chunk in chunks:
        connection.sendall(MORE + blob(chunk))
    connection.sendall(END)
