"""A stream of bytes cut into messages: the length of each (4 bytes, big-endian), then msgpack.

No pickle: neither side can be made to run anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

_HEADER: Final = 4


def frame(encoder: msgspec.msgpack.Encoder, message: Any) -> bytearray:
    """A message as it goes over the socket."""
    buffer = bytearray(_HEADER)
    encoder.encode_into(message, buffer, _HEADER)
    buffer[:_HEADER] = (len(buffer) - _HEADER).to_bytes(_HEADER, "big")
    return buffer


class Deframer:
    """Cuts a stream of bytes into the messages' bytes, wherever it was split."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete now."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _HEADER:
            end = start + _HEADER + int.from_bytes(buffer[start : start + _HEADER], "big")
            if len(buffer) < end:
                break
            yield bytes(buffer[start + _HEADER : end])
            start = end
        del buffer[:start]
