"""Reads HTTP/1.1 answers from a socket's bytes with as little work as counting allows.

A sans-I/O state machine for one connection with one request at a time. It knows what our servers
send: a Content-Length or chunks, no trailers, no folded headers. The body is not kept, only
counted: its bytes and its lines (a streamed answer of ours has one line per token), unless `keep`
is set; `tail` keeps its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 64 * 1024  # more than any server here sends: something else is talking


class NotHttp(Exception):
    """The bytes are no answer that this reader knows."""


@dataclass(slots=True)
class AnswerReader:
    """Feed it what the socket says; `done` is true when the answer is complete.

    status: 0 until the head is complete. lines, size: of the body so far. beyond: bytes that came
    after the answer's end, where there should be none. tail: so many of the body's last bytes are
    in `end`, at least.
    """

    keep: bool = False
    tail: int = 0
    end: bytes = b""
    status: int = 0
    lines: int = 0
    size: int = 0
    done: bool = False
    closes: bool = False
    beyond: int = 0
    headers: bytes = b""
    kept: list[bytes] = field(default_factory=list)
    _rest: bytes = b""
    _chunked: bool = False
    _last_chunk: bool = False
    _left: int = 0  # bytes of the body, or of the present chunk with its line end

    @property
    def body(self) -> bytes:
        """The whole body, where it was kept."""
        return b"".join(self.kept)

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises NotHttp."""
        if not self.status:
            data = self._head(data)
            if not self.status:
                return
        if self._chunked:
            self._chunks(data)
        else:
            self._count(data[: self._left])
            self.beyond = max(0, len(data) - self._left)
            self._left = max(0, self._left - len(data))
            self.done = not self._left

    def _head(self, data: bytes) -> bytes:
        data = self._rest + data
        end = data.find(_HEAD_END)
        if end < 0:
            if len(data) > _LONGEST_HEAD:
                raise NotHttp(f"no end of the head in {len(data)} bytes")
            self._rest = data
            return b""
        head = data[:end].lower()
        version, _, rest = head.partition(b" ")
        if not version.startswith(b"http/1.") or not rest[:3].isdigit():
            raise NotHttp(f"an answer begins with {data[:40]!r}")
        self.status = int(rest[:3])
        self.headers = head
        self.closes = b"\r\nconnection: close" in head
        self._rest = b""
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        if not self._chunked:
            _, found, length = head.partition(b"\r\ncontent-length:")
            if not found:
                raise NotHttp("an answer has neither a length nor chunks")
            self._left = int(length.split(b"\r\n", 1)[0])
        return data[end + len(_HEAD_END) :]

    def _chunks(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        place = 0
        end = len(data)
        while place < end:
            if not self._left:
                line_end = data.find(b"\r\n", place)
                if line_end < 0:
                    self._rest = data[place:]
                    return
                size = int(data[place:line_end], 16)
                place = line_end + 2
                self._left = size + 2
                self._last_chunk = not size
            taken = min(self._left, end - place)
            # The chunk's own line end is not the body's.
            body_end = place + taken - max(0, 2 - (self._left - taken))
            if body_end > place:
                self._count(data[place:body_end])
            self._left -= taken
            place += taken
            if self._last_chunk and not self._left:
                self.done = True
                self.beyond = end - place
                return

    def _count(self, body: bytes) -> None:
        self.size += len(body)
        self.lines += body.count(b"\n")
        if self.tail:
            self.end = self.end[-self.tail :] + body
        if self.keep:
            self.kept.append(body)
