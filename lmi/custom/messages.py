"""What a front and its workers say to each other, and how it is cut into frames.

A frame is its length (4 bytes, big-endian) and one message in msgpack. No pickle: neither side can
be made to run anything. Only the two processes speak this, over a socket pair that nobody else
holds; both run this file.

    worker: Ready or Failed                          front: Start first
    worker: Part*, the last of a call with `last`    front: Work, Cancel, Taken at any time after
                                                            Ready; Close, once

A worker keeps no more than `WINDOW` bytes of a stream under way: it waits until the front says
`Taken`. So a handler that is faster than its reader fills no memory.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from lmi.core import (
    Call,
    ConfigError,
    EngineDead,
    EngineError,
    Head,
    LmiError,
    ModelError,
    OutOfMemory,
    RequestError,
)
from lmi.ipc import framing

WINDOW: Final = 1 << 20  # bytes of one stream that the front has not taken


class Start(Struct, frozen=True, tag=True, array_like=True):
    """What to load. Text and numbers of a FunctionSpec, see there; device_id is the seat's."""

    name: str
    folder: str
    entry_point: str | None
    fallback: str | None
    handler: str
    properties: dict[str, str | int]
    device_id: int
    concurrency: int


class Request(Struct, frozen=True, array_like=True):
    """A call as it travels."""

    id: int
    properties: dict[str, str]
    content: list[tuple[str | None, bytes]]
    function: str

    @classmethod
    def of(cls, call_id: int, call: Call, function: str) -> Request:
        return cls(call_id, dict(call.properties), list(call.content), function)


class Work(Struct, frozen=True, tag=True, array_like=True):
    """Calls that the handler gets at once: one, or a batch."""

    requests: list[Request]


class Cancel(Struct, frozen=True, tag=True, array_like=True):
    """Nobody waits for this call any more."""

    call_id: int


class Taken(Struct, frozen=True, tag=True, array_like=True):
    """So many bytes of a stream have been handed on."""

    call_id: int
    size: int


class Close(Struct, frozen=True, tag=True, array_like=True):
    """End."""


class Fault(Struct, frozen=True, array_like=True):
    """An error as it travels. kind: a key of `_KINDS`, or "config" with `config` set."""

    kind: str
    text: str
    config: tuple[str, str | None, str, str] | None = None

    @classmethod
    def of(cls, error: LmiError) -> Fault:
        """Describe an error so that `exception` gives it again, of its own class or the next."""
        if isinstance(error, ConfigError):
            return cls("config", "", (error.option, error.value, error.source, error.want))
        for kind, known in _KINDS.items():
            if isinstance(error, known):
                return cls(kind, str(error))
        return cls("dead", str(error))

    def exception(self) -> LmiError:
        """The error again."""
        if self.config is not None:
            return ConfigError(*self.config)
        return _KINDS.get(self.kind, EngineDead)(self.text)


_KINDS: Final[dict[str, type[LmiError]]] = {
    "memory": OutOfMemory,
    "engine": EngineError,
    "request": RequestError,
    "model": ModelError,
    "dead": EngineDead,
}


class Ready(Struct, frozen=True, tag=True, array_like=True):
    """The handler is loaded and has had its initialise call.

    handler: its name and file, for people. capacity: calls that it takes at once, 0 where it takes
    one batch at a time.
    """

    handler: str
    capacity: int


class Failed(Struct, frozen=True, tag=True, array_like=True):
    """The handler could not be loaded; nothing follows."""

    fault: Fault


class Part(Struct, frozen=True, tag=True, array_like=True):
    """A part of a call's answer: see `lmi.core.Piece`. head: status, reason and headers."""

    call_id: int
    data: bytes = b""
    head: tuple[int, str, list[tuple[str, str]]] | None = None
    last: bool = False
    fault: Fault | None = None

    @property
    def described(self) -> Head | None:
        """The head, if this part has one."""
        if self.head is None:
            return None
        status, reason, headers = self.head
        return Head(status, reason, tuple(headers))


FromFront = Start | Work | Cancel | Taken | Close
FromWorker = Ready | Failed | Part

_encoder: Final = msgspec.msgpack.Encoder()
decode_from_front: Final = msgspec.msgpack.Decoder(FromFront).decode
decode_from_worker: Final = msgspec.msgpack.Decoder(FromWorker).decode


def frame(message: FromFront | FromWorker) -> bytearray:
    """A message as it goes over the socket."""
    return framing.frame(_encoder, message)
