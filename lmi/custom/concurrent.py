"""A worker's loop for an `async def` handler: many requests at a time on one event loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections.abc import Mapping
from typing import Any

from lmi.custom.answers import Stream, Whole, failure, interpret
from lmi.custom.handlers import Handler
from lmi.custom.inputs import single
from lmi.custom.messages import (
    WINDOW,
    Cancel,
    Close,
    FromFront,
    Part,
    Request,
    Taken,
    Work,
    decode_from_front,
    frame,
)
from lmi.custom.parts import cancelled, end, fault_of, head_of, whole
from lmi.custom.streams import items_of
from lmi.ipc.framing import Deframer

log = logging.getLogger("lmi.custom")


class Concurrent(asyncio.Protocol):
    """Obeys the front; `over` is done when it said Close, or fails when it is gone."""

    def __init__(self, handler: Handler, own: Mapping[str, Any]) -> None:
        """own: what every request's properties hold."""
        self._handler = handler
        self._own = own
        self._deframer = Deframer()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._untaken: dict[int, int] = {}  # bytes of the streams under way
        self._room = asyncio.Event()  # set and made anew whenever the front took something
        self._transport: asyncio.Transport | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in map(decode_from_front, self._deframer.feed(data)):
            self._obey(message)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(ConnectionResetError("the front is gone"))

    def _obey(self, message: FromFront) -> None:
        match message:
            case Work(requests):
                for request in requests:
                    self._calls[request.id] = asyncio.create_task(self._serve(request))
            case Cancel(call_id):
                if call_id in self._calls:
                    self._calls[call_id].cancel()
            case Taken(call_id, size):
                if call_id in self._untaken:
                    self._untaken[call_id] -= size
                    self._room.set()
                    self._room = asyncio.Event()
            case Close():
                if not self.over.done():
                    self.over.set_result(None)

    # A call's way

    async def _serve(self, request: Request) -> None:
        answer: Whole | Stream | None = None
        try:
            try:
                answer = interpret(await self._call(request))
            except (Exception, SystemExit) as error:  # a user's code may raise anything
                log.exception("%s failed", self._handler.described)
                answer = failure(error)
            if isinstance(answer, Whole):
                self._send(whole(request.id, answer))
            else:
                await self._stream(request.id, answer)
            if answer.after is not None:
                answer.after()
        except asyncio.CancelledError:
            self._send(cancelled(request.id))
        except Exception:  # the answer is out: nothing else can be done for it
            log.exception("finalize of %s failed", self._handler.described)
        finally:
            del self._calls[request.id]

    async def _call(self, request: Request) -> Any:
        called = self._handler.named(request.function)
        if called is None:
            raise AttributeError(f"the model's code has no function {request.function!r}")
        result = called(single(request, self._own))
        return await result if inspect.isawaitable(result) else result

    async def _stream(self, call_id: int, stream: Stream) -> None:
        items = items_of(stream)
        begun = False
        self._untaken[call_id] = 0
        try:
            async for value in items:
                chunk = stream.encode(value)
                described = None if begun else (stream.head or chunk.head)
                if chunk.error is not None:
                    self._send(fault_of(call_id, chunk, begun))
                    return
                begun = True
                self._send(Part(call_id, chunk.data, head_of(described), last=chunk.last))
                if chunk.last:
                    return
                await self._wait_for_room(call_id, len(chunk.data))
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            log.exception("the stream of %s failed", self._handler.described)
            self._send(end(call_id, begun, stream.head, error))
            return
        finally:
            del self._untaken[call_id]
            await items.aclose()
        self._send(end(call_id, begun, stream.head, None))

    async def _wait_for_room(self, call_id: int, size: int) -> None:
        self._untaken[call_id] += size
        while self._untaken[call_id] > WINDOW:
            await self._room.wait()

    def _send(self, part: Part) -> None:
        # What can wait here is bounded by the windows of the calls.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(part))


async def serve(link: socket.socket, handler: Handler, own: Mapping[str, Any]) -> None:
    """Serve until Close; raises ConnectionError when the front is gone."""
    loop = asyncio.get_running_loop()
    transport, worker = await loop.connect_accepted_socket(lambda: Concurrent(handler, own), link)
    try:
        await worker.over
    finally:
        transport.close()
