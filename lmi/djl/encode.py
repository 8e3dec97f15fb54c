"""Replies as Java's decoder wants them. Pure: values in, bytes out. The rules stand in `wire`.

Items of a rolling batch and of async mode are made once per request and step, so their constant
parts are made once per connection; see `benchmarks/worker_step.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lmi.djl.wire import FIELD_LIMIT, SHORT_LIMIT, TRACKING_ID, Width

STREAM_END: Final = b"\x00\x00\x00\x00\x00"
"""Rule 1: the end of a stream, to be written when Java has read all before it."""

_STREAM: Final = b"\xff\xff"  # in place of the number of items
_MAP_ROOM: Final = 1024  # bytes of a map besides `data`, when it has no error
_ERROR_LIMIT: Final = 4096  # bytes; it is a reason phrase, and HTTP clients bound their lines

# What ends a line, for HTTP or for Java, and what HTTP allows in no line.
_ONE_LINE: Final = {number: " " for number in (*range(32), 127, 0x85, 0x2028, 0x2029)}

Headers = Iterable[tuple[str, str]]


class Encoder:
    """For one connection. field_limit: bytes of the largest field that Java takes."""

    def __init__(self, width: Width, field_limit: int = FIELD_LIMIT) -> None:
        self.width = width
        self.field_limit = field_limit
        self.max_data = field_limit - _MAP_ROOM
        """Bytes of text that one map can carry."""
        if width is Width.SHORT:
            self.max_data = min(self.max_data, SHORT_LIMIT)
        data, last = self.string("data"), self.string("last")
        self._map_head = b"\x00\x02" + data
        self._map_tails = (last + self.string("false"), last + self.string("true"))
        self._item_head = data  # the key of an item; Java ignores it
        self.empty_item = self.item(b"", last=False)
        """An item that says nothing yet."""

    def string(self, text: str) -> bytes:
        """A string with its length; cut where the length's 16 bits end."""
        data = text.encode("utf-8", "replace")
        if self.width is Width.SHORT and len(data) > SHORT_LIMIT:
            data = data[: whole_characters(data, SHORT_LIMIT)]
        return len(data).to_bytes(self.width, "big") + data

    def properties(self, headers: Headers) -> bytes:
        """Headers with their number; each value is one line (rule 10)."""
        pairs = [self.string(name) + self.string(one_line(value)) for name, value in headers]
        return len(pairs).to_bytes(2, "big") + b"".join(pairs)

    def _head(self, code: int, message: str, headers: Headers) -> bytes:
        start = code.to_bytes(2, "big") + self.string(clipped(one_line(message)))
        return start + self.properties(headers)

    def reply(
        self,
        code: int,
        message: str,
        headers: Headers = (),
        content: Sequence[tuple[str, bytes]] = (),
    ) -> bytes:
        """A plain reply. Raises ValueError for an item over the field limit (rule 8)."""
        parts = [self._head(code, message, headers), len(content).to_bytes(2, "big")]
        for key, value in content:
            if len(value) > self.field_limit:
                raise ValueError(f"an item of {len(value)} bytes, at most {self.field_limit}")
            parts += (self.string(key), len(value).to_bytes(4, "big"), value)
        return b"".join(parts)

    def stream_head(self, code: int, message: str, headers: Headers = ()) -> bytes:
        """What announces a stream."""
        return self._head(code, message, headers) + _STREAM

    def stream_frames(self, data: bytes) -> bytes:
        """Data of a stream, in frames that Java takes; nothing for no data."""
        limit = self.field_limit
        if 0 < len(data) <= limit:
            return b"\x01" + len(data).to_bytes(4, "big") + data
        pieces = [data[place : place + limit] for place in range(0, len(data), limit)]
        return b"".join([b"\x01" + len(piece).to_bytes(4, "big") + piece for piece in pieces])

    def map(self, values: Mapping[str, str]) -> bytes:
        """A map of texts."""
        pairs = [self.string(key) + self.string(value) for key, value in values.items()]
        return len(pairs).to_bytes(2, "big") + b"".join(pairs)

    def data_map(self, data: bytes, last: bool) -> bytes:
        """The map of a piece of an answer. data: UTF-8, at most `max_data` bytes."""
        size = len(data).to_bytes(self.width, "big")
        return b"".join((self._map_head, size, data, self._map_tails[last]))

    def error_map(self, code: int, error: str) -> bytes:
        """The map that ends a request with a status, before any of its text was sent."""
        return self.map({"data": "", "last": "true", "code": str(code), "error": clipped(error)})

    def doomed_map(self, code: int, error: str) -> bytes:
        """Rule 4's exception: answers the client and leaves the request in Java's list.

        Its `data` is not empty, because Java would then ignore the rest; it is not sent either.
        """
        return self.map({"data": " ", "last": "false", "code": str(code), "error": clipped(error)})

    def item(self, data: bytes, last: bool) -> bytes:
        """An item of a rolling batch's reply with a piece of an answer."""
        return self.item_of(self.data_map(data, last))

    def item_of(self, payload: bytes) -> bytes:
        """An item of a rolling batch's reply."""
        return self._item_head + len(payload).to_bytes(4, "big") + payload

    def batch_reply(self, headers: Headers, items: Sequence[bytes]) -> bytes:
        """The reply to a rolling batch's step. headers: named `batch_<i>_<Name>`."""
        head = self._head(200, "OK", headers)
        return b"".join([head, len(items).to_bytes(2, "big"), *items])

    def async_reply(self, tracking_id: str, payload: bytes, headers: Headers = ()) -> bytes:
        """A reply in async mode: one map for the request of this id."""
        return b"".join(
            (self.async_head(tracking_id, headers), len(payload).to_bytes(4, "big"), payload)
        )

    def async_head(self, tracking_id: str, headers: Headers = ()) -> bytes:
        """All of a reply in async mode before its payload; the same for all replies to one id."""
        head = self._head(200, "OK", ((TRACKING_ID, tracking_id), *headers))
        return head + b"\x00\x01" + self._item_head


def one_line(text: str) -> str:
    """Without line ends and control characters."""
    return text if text.isprintable() else text.translate(_ONE_LINE).strip()


def clipped(text: str) -> str:
    """One line, and a length that a reason phrase may have."""
    line = one_line(text)
    if len(line) > _ERROR_LIMIT // 4:  # at most four bytes to a character
        data = line.encode("utf-8", "replace")
        line = data[: whole_characters(data, _ERROR_LIMIT)].decode()
    return line


def whole_characters(data: bytes | bytearray, limit: int) -> int:
    """How many of the first `limit` bytes of UTF-8 make whole characters."""
    if len(data) <= limit:
        limit = len(data)
        if not limit or data[limit - 1] < 0x80:
            return limit
    # The last character begins at most three bytes before the end.
    for place in range(limit - 1, max(limit - 5, -1), -1):
        lead = data[place]
        if lead & 0xC0 != 0x80:
            size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return limit if place + size <= limit else place
    return limit
