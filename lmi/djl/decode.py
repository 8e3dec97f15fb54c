"""Java's bytes, cut anywhere, become messages.

The parser is a generator that stops where the bytes end and goes on when more have come: nothing is
read twice, however small the pieces are. Memory grows with what has arrived, never with what a
length promises.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from struct import Struct
from typing import Final

from lmi.djl.wire import Limits, Message, ProtocolError, Width

_I16: Final = Struct(">h").unpack_from
_I32: Final = Struct(">i").unpack_from

# The property count, and the first bytes of the first key's length: zero only where it has four.
_SNIFFED: Final = 4
_LIMITS: Final = Limits()

# The items of a rolling batch's requests that go on, and how Java writes them.
_CONTINUING: Final = tuple([(f"batch_{place:03}.data", b"") for place in range(1000)])
_WRITTEN: Final = {
    width: b"".join(
        [len(key).to_bytes(width, "big") + key.encode() + bytes(4) for key, _ in _CONTINUING]
    )
    for width in Width
}


class Decoder:
    """Turns bytes into messages. The width of strings is told by the first message."""

    def __init__(self, limits: Limits = _LIMITS) -> None:
        self.width: Width | None = None
        self._limits = limits
        self._buffer = bytearray()
        self._needed = _SNIFFED
        self._messages = self._parse()

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """The messages that are complete now. Raises ProtocolError, after those before the fault;
        the decoder is of no use then."""
        self._buffer += data
        while len(self._buffer) >= self._needed:
            found = next(self._messages, None)
            if found is None:
                raise ProtocolError("nothing can be understood after garbage")
            if isinstance(found, int):
                self._needed = found
            else:
                self._needed = 2
                yield found

    def _parse(self) -> Generator[Message | int, None, None]:
        """Yields messages, and where the buffer is too short, how long it must be to go on."""
        buffer, limits = self._buffer, self._limits
        self.width = width = _width(buffer)
        length_of = _I16 if width is Width.SHORT else _I32
        continuing = _WRITTEN[width]
        item_size = len(continuing) // len(_CONTINUING)
        while True:
            place = 2
            (count,) = _I16(buffer)
            if count < 0:
                raise ProtocolError(f"{count} properties")
            properties: dict[str, str] = {}
            for _ in range(count):
                pair: list[str | None] = []
                for _ in range(2):
                    start = place + width
                    while len(buffer) < start:
                        yield self._more(start)
                    (size,) = length_of(buffer, place)
                    if size < 0:
                        pair.append(None)
                        place = start
                        continue
                    if size > limits.string:
                        raise ProtocolError(f"a string of {size} bytes")
                    place = start + size
                    while len(buffer) < place:
                        yield self._more(place)
                    pair.append(_text(buffer[start:place]))
                key, value = pair
                if key is None:
                    raise ProtocolError("a property without a name")
                if value is not None:  # as if it had not been sent
                    properties[key] = value
            while len(buffer) < place + 2:
                yield self._more(place + 2)
            (count,) = _I16(buffer, place)
            place += 2
            if count < 0:
                raise ProtocolError(f"{count} items")
            known = count <= len(_CONTINUING)
            if known and buffer.startswith(continuing[: count * item_size], place):
                # Nobody new in a rolling batch: nearly every message.
                del buffer[: place + count * item_size]
                yield Message(properties, _CONTINUING[:count])
                continue
            content: list[tuple[str | None, bytes]] = []
            for _ in range(count):
                start = place + width
                while len(buffer) < start:
                    yield self._more(start)
                (size,) = length_of(buffer, place)
                if size > limits.string:
                    raise ProtocolError(f"an item's name of {size} bytes")
                place = start + max(size, 0)
                while len(buffer) < place + 4:
                    yield self._more(place + 4)
                key = None if size < 0 else _text(buffer[start:place])
                (size,) = _I32(buffer, place)
                start = place + 4
                if not size:
                    content.append((key, b""))
                    place = start
                    continue
                if not 0 < size <= limits.blob:
                    raise ProtocolError(f"an item of {size} bytes")
                place = start + size
                while len(buffer) < place:
                    yield self._more(place)
                content.append((key, bytes(memoryview(buffer)[start:place])))
            del buffer[:place]
            yield Message(properties, tuple(content))

    def _more(self, needed: int) -> int:
        if needed > self._limits.message:
            raise ProtocolError(f"a message of over {self._limits.message} bytes")
        return needed


def _width(buffer: bytearray) -> Width:
    """Told by the first message's bytes 2 and 3, where the first property's name begins."""
    (count,) = _I16(buffer)
    if count < 1:
        raise ProtocolError("the first message has no properties, expected at least `handler`")
    return Width.LONG if _I16(buffer, 2) == (0,) else Width.SHORT


def _text(data: bytearray) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a string that is not UTF-8") from None
