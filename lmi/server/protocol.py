"""uvicorn's HTTP protocol with bounds on a request's head, which uvicorn leaves open.

A head is what comes before the body: the request line and the headers. Its size is counted in bytes
as they come from the socket, and its time from the connection's start or from its first byte.

uvicorn also tells only the newest of a connection's pipelined requests that the client left. Here
all are told: a generation must not go on for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lmi.server.config import ServerConfig
from lmi.server.errors import pretty
from lmi.server.reason import offer_reason


def bounded(config: ServerConfig) -> type[HttpToolsProtocol]:
    """The protocol class with this configuration's bounds."""

    class BoundedHttp(HttpToolsProtocol):
        _in_head = True
        _head_size = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._cycles: list[RequestResponseCycle] = []
            self._time_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            for cycle in self._cycles:
                cycle.disconnected = True
                cycle.message_event.set()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                self._head_size += len(data)
            super().data_received(data)
            if self._in_head and self._head_size > config.max_head_size:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the request's head is larger than {config.max_head_size} bytes",
                )

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head_timer is None:
                self._time_head()

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._head_size = 0
            self._stop_timer()
            super().on_headers_complete()
            offer_reason(cast("MutableMapping[str, Any]", self.scope), self.cycle)
            self._cycles.append(self.cycle)

        def on_message_complete(self) -> None:
            self._in_head = True
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

        def _time_head(self) -> None:
            self._head_timer = self.loop.call_later(config.head_timeout, self._head_is_late)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _head_is_late(self) -> None:
            self._head_timer = None
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the request's head did not arrive within {config.head_timeout:g} s",
            )

        def _refuse(self, status: HTTPStatus, text: str) -> None:
            if self.transport.is_closing():
                return
            kind = "".join(status.phrase.split()) + "Exception"
            body = pretty({"code": int(status), "type": kind, "message": text})
            head = (
                f"HTTP/1.1 {int(status)} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return BoundedHttp
