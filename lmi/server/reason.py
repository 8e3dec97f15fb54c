"""HTTP's reason phrase, which handlers may set and ASGI has no word for.

The protocol puts a function into the request's scope; whoever answers calls it before the answer's
start. It stands between the answer and the transport for one write: that of the head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION: Final = "lmi.reason"

SetReason = Callable[[bytes], None]


def offer_reason(scope: MutableMapping[str, Any], cycle: RequestResponseCycle) -> None:
    """Let whoever answers the request of this scope set the phrase."""
    scope.setdefault("extensions", {})[EXTENSION] = partial(_FirstLine, cycle)


def reason_setter(scope: MutableMapping[str, Any]) -> SetReason | None:
    """What sets the phrase; None where the server can't."""
    found: SetReason | None = scope.get("extensions", {}).get(EXTENSION)
    return found


class _FirstLine:
    """A transport whose first write gets another reason phrase; then it is out of the way."""

    __slots__ = ("_cycle", "_phrase", "_transport")

    def __init__(self, cycle: RequestResponseCycle, phrase: bytes) -> None:
        self._cycle = cycle
        self._phrase = phrase
        self._transport = cycle.transport
        cycle.transport = cast("asyncio.Transport", self)

    def write(self, data: bytes) -> None:
        line, _, rest = data.partition(b"\r\n")
        version, status = line.split(b" ")[:2]
        self._cycle.transport = self._transport
        self._transport.write(b"%b %b %b\r\n%b" % (version, status, self._phrase, rest))

    def close(self) -> None:
        self._transport.close()
