"""The Java side's codec, as strict as Java is fragile: a fake that refuses what would hang Java.

Written from the protocol, not from ours: it shares nothing with `lmi.djl` but the widths' names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lmi.djl.wire import Width

FIELD_LIMIT = 20 * 1024 * 1024
STREAM_END = b"\0\0\0\0\0"

Items = Sequence[tuple[str | None, bytes]]


class JavaWouldBreak(AssertionError):
    """What came would hang or kill the real Java side, or show its client something wrong."""


def refuse(condition: object, what: str) -> None:
    if condition:
        raise JavaWouldBreak(what)


def one_line(value: str) -> bool:
    return not any(ord(char) < 32 or ord(char) == 127 for char in value)


def text(value: str | None, width: Width) -> bytes:
    if value is None:
        return b"\xff" * width
    data = value.encode()
    return len(data).to_bytes(width, "big") + data


def request(properties: Mapping[str, str | None], content: Items, width: Width) -> bytes:
    """A message as Java writes it."""
    parts = [struct.pack(">h", len(properties))]
    parts += [text(key, width) + text(value, width) for key, value in properties.items()]
    parts.append(struct.pack(">h", len(content)))
    for key, value in content:
        parts += [text(key, width), struct.pack(">i", len(value)), value]
    return b"".join(parts)


@dataclass(frozen=True)
class Reply:
    """A reply. streams: frames follow it."""

    code: int
    message: str
    properties: dict[str, str] = field(default_factory=dict)
    content: tuple[tuple[str, bytes], ...] = ()
    streams: bool = False


@dataclass(frozen=True)
class Frame:
    """A piece of a stream; the last one is empty."""

    data: bytes
    last: bool


class _Short(Exception):
    pass


class _Cursor:
    def __init__(self, data: bytes, width: Width, limit: int) -> None:
        self.data, self.width, self.limit, self.place = data, width, limit, 0

    def take(self, size: int) -> bytes:
        if self.place + size > len(self.data):
            raise _Short
        self.place += size
        return self.data[self.place - size : self.place]

    def i16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def i32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def text(self) -> str:
        size = self.i16() if self.width is Width.SHORT else self.i32()
        refuse(size < 0, "a null string")
        refuse(size > self.limit, f"a string of {size} bytes")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise JavaWouldBreak(f"Java would show U+FFFD: {error}") from error

    def blob(self) -> bytes:
        size = self.i32()
        refuse(size < 0, "a null blob")
        refuse(size > self.limit, f"a blob of {size} bytes: a corrupted frame")
        return self.take(size)


class ReplyReader:
    """Cuts what comes into replies and frames. Feed it each read by itself: where a stream's end
    is cut by a read, Java's decoder loses its way."""

    def __init__(self, width: Width, limit: int = FIELD_LIMIT) -> None:
        self._width, self._limit = width, limit
        self._rest = b""
        self._streaming = False

    def feed(self, data: bytes) -> Iterator[Reply | Frame]:
        held = len(self._rest)
        self._rest += data
        while self._rest:
            cursor = _Cursor(self._rest, self._width, self._limit)
            try:
                found = self._frame(cursor) if self._streaming else self._reply(cursor)
            except _Short:
                if self._streaming:
                    refuse(self._rest[0] != 1, "a stream's end that is cut in two")
                return
            if isinstance(found, Frame):
                refuse(found.last and held, "a stream's end with data before it in one read")
                self._streaming = not found.last
            else:
                self._streaming = found.streams
            self._rest = self._rest[cursor.place :]
            held = 1 if self._rest else 0
            yield found

    def _frame(self, cursor: _Cursor) -> Frame:
        last = cursor.take(1) != b"\1"
        data = cursor.blob()
        refuse(last and data, "a stream's end with data in it")
        return Frame(data, last)

    def _reply(self, cursor: _Cursor) -> Reply:
        code = cursor.i16()
        refuse(not 100 <= code <= 599, f"code {code}")
        message = cursor.text()
        refuse(not one_line(message), f"the message {message!r}")
        properties = {}
        for _ in range(cursor.i16()):
            key, value = cursor.text(), cursor.text()
            refuse(not one_line(value), f"the header {key}={value!r}")
            refuse(not key, "a header without a name")
            properties[key] = value
        count = cursor.i16()
        refuse(count < -1, f"{count} items")
        content = tuple([(cursor.text(), cursor.blob()) for _ in range(max(count, 0))])
        return Reply(code, message, properties, content, count == -1)


def binary_map(payload: bytes, width: Width) -> dict[str, str]:
    """The map of an item; every byte of it."""
    cursor = _Cursor(payload, width, FIELD_LIMIT)
    try:
        found = {cursor.text(): cursor.text() for _ in range(cursor.i16())}
    except _Short:
        raise JavaWouldBreak("a truncated map ends Java's batch thread") from None
    refuse(cursor.place != len(payload), "bytes behind a map")
    return found


@dataclass
class JavaRequest:
    """A request in Java's list, and what its client has got. chunks: in the order of arrival."""

    properties: dict[str, str]
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    error: str | None = None
    chunks: list[str] = field(default_factory=list)
    next_token: str | None = None
    last: bool = False
    complete: bool = False  # its client has got all

    def add_response(
        self, payload: bytes, headers: Iterable[tuple[str, str]], width: Width
    ) -> None:
        """What the real class does with a map, and refusing what it suffers from."""
        self.headers.update(headers)
        found = binary_map(payload, width)
        refuse("data" not in found, "a map without data")
        refuse(found.get("last") not in ("true", "false"), f"last={found.get('last')!r}")
        self.next_token = found["data"]
        self.last = found["last"] == "true"
        if not self.next_token and not self.last:
            refuse("code" in found, "a code that Java ignores")
            return
        refuse(self.complete, "more of an answer that is complete")
        if "code" in found:
            refuse(not found["code"].isdecimal(), f"code={found['code']!r}")
            error = found.get("error", "")
            refuse(not one_line(error), f"error={error!r} becomes a reason phrase")
            refuse(self.chunks, "a status after the first byte")
            self.status, self.error = int(found["code"]), error
            self.complete = True
            return
        self.chunks.append(self.next_token)
        self.complete = self.last

    def fail(self, status: int, error: str) -> None:
        """The batch or the engine failed as a whole."""
        if not self.complete:
            self.status = self.status if self.chunks else status
            self.error, self.complete, self.last = error, True, True

    @property
    def text(self) -> str:
        return "".join(self.chunks)
