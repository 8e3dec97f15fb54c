"""A fake Java side over a real socket: it drives a worker as the DJL model server does.

    async with FakeJava.connected(path) as java:
        await java.initialise({"rolling_batch": "auto"})
        answer = await java.predict(b'{"inputs": "x"}')           one at a time
        answers = await java.predict_batch([b"...", b"..."])      dynamic batch
        await java.rolling.finish(java.rolling.add(b"..."))       rolling batch
        await java.ask(b"...")                                    async mode

Whatever would hang, kill or confuse the real one raises JavaWouldBreak.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmi.djl.wire import Width
from tests.support.djl_bytes import (
    FIELD_LIMIT,
    Frame,
    Items,
    JavaRequest,
    Reply,
    ReplyReader,
    refuse,
    request,
)

SECONDS = 30.0  # for anything that must come


class Disconnected(Exception):
    """The worker closed the socket."""


@dataclass
class Answer:
    """What an HTTP client would get. chunks: of a stream, else one."""

    status: int
    reason: str
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    streamed: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


class FakeJava(asyncio.Protocol):
    """One connection. After the worker has gone, `gone` is set."""

    def __init__(self, width: Width = Width.LONG, limit: int = FIELD_LIMIT) -> None:
        self.width = width
        self.gone = asyncio.Event()
        self.rolling = RollingSide(self)
        self.rolls = False
        self.asked: dict[str, JavaRequest] = {}
        self.reads = 0
        self._reader = ReplyReader(width, limit)
        self._replies: deque[Reply | Frame] = deque()
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(
        cls, address: Path | tuple[str, int], width: Width = Width.LONG, limit: int = FIELD_LIMIT
    ) -> AsyncIterator[FakeJava]:
        loop = asyncio.get_running_loop()
        if isinstance(address, Path):
            _, java = await loop.create_unix_connection(lambda: cls(width, limit), str(address))
        else:
            _, java = await loop.create_connection(lambda: cls(width, limit), *address)
        try:
            yield java
        finally:
            java.close()
            await asyncio.sleep(0)

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        try:
            for found in self._reader.feed(data):
                if isinstance(found, Reply) and "request_tracking_id" in found.properties:
                    self._tracked(found)
                else:
                    self._replies.append(found)
        except Exception as error:
            self._error = error
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._news.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """Read nothing for now."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def send(self, properties: Mapping[str, str | None], content: Items = ()) -> None:
        self.send_bytes(request(properties, content, self.width))

    def send_bytes(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def until(self, done: object) -> None:
        """Wait until `done()` is true; raises what the worker did wrong."""
        assert callable(done)
        async with asyncio.timeout(SECONDS):
            while True:
                if self._error is not None:
                    raise self._error
                if done():
                    return
                if self.gone.is_set():
                    raise Disconnected
                self._news.clear()
                await self._news.wait()

    async def next(self) -> Reply | Frame:
        await self.until(lambda: self._replies)
        return self._replies.popleft()

    async def reply(self) -> Reply:
        found = await self.next()
        assert isinstance(found, Reply), found
        return found

    # What the model server does

    async def initialise(self, properties: Mapping[str, str] | None = None) -> Reply:
        self.rolls = "rolling_batch" in (properties or {})
        self.send({"handler": "handle", **(properties or {})})
        return await self.reply()

    async def predict(
        self,
        body: bytes | None = b"",
        properties: Mapping[str, str] | None = None,
        content: Items | None = None,
    ) -> Answer:
        """One request, the next one only after it."""
        if content is None:
            content = () if body is None else [("data", body)]
        self.send({"handler": "handle", **(properties or {})}, content)
        return await self.answer()

    async def answer_to_the_end(self) -> None:
        """Frames until the last one, or Disconnected."""
        while not getattr(await self.next(), "last", False):
            pass

    async def answer(self) -> Answer:
        """The answer to the oldest request that has none."""
        reply = await self.reply()
        answer = Answer(reply.code, reply.message, reply.properties, streamed=reply.streams)
        if not reply.streams:
            by_key = dict(reversed(reply.content))
            answer.chunks = [by_key.get("data", reply.content[0][1])] if reply.content else []
            return answer
        while True:
            frame = await self.next()
            assert isinstance(frame, Frame)
            if frame.last:
                return answer
            answer.chunks.append(frame.data)

    async def predict_batch(
        self, bodies: Sequence[bytes], properties: Mapping[str, str] | None = None
    ) -> list[Answer]:
        """Several requests in one message."""
        sent: dict[str, str | None] = {"batch_size": str(len(bodies)), "handler": "handle"}
        for place in range(len(bodies)):
            for key, value in (properties or {}).items():
                sent[f"batch_{place:03}.{key}"] = value
        self.send(sent, [(f"batch_{place:03}.data", body) for place, body in enumerate(bodies)])
        reply = await self.reply()
        first = reply.content[0][1] if reply.content else b""
        if reply.code >= 300:
            return [Answer(reply.code, reply.message, reply.properties, [first]) for _ in bodies]
        refuse(len(reply.content) != len(bodies), "a batch's reply of another size")
        answers = [Answer(reply.code, reply.message, reply.properties) for _ in bodies]
        for key, value in reply.content:
            place, _, name = key.removeprefix("batch_").partition(".")
            refuse(name != "data", f"the item {key}")
            answers[int(place)].chunks.append(value)
        return answers

    def open(self, body: bytes, properties: Mapping[str, str] | None = None) -> JavaRequest:
        """Send a request of the async mode."""
        tracking = str(uuid.uuid4())
        own = {"handler": "handle", **(properties or {}), "request_tracking_id": tracking}
        asked = JavaRequest(own, body)
        self.asked[tracking] = asked
        self.send(own, [("data", body)])
        return asked

    async def ask(self, body: bytes, properties: Mapping[str, str] | None = None) -> JavaRequest:
        """A request of the async mode, to its end."""
        asked = self.open(body, properties)
        await self.until(lambda: asked.complete)
        return asked

    def _tracked(self, reply: Reply) -> None:
        tracking = reply.properties["request_tracking_id"]
        refuse(reply.code != 200, f"code {reply.code} in async mode")
        refuse(reply.streams, "a stream in async mode")
        asked = self.asked.get(tracking)
        refuse(asked is None, "more of a request that is over")
        assert asked is not None
        headers = () if asked.chunks else reply.properties.items()
        asked.add_response(reply.content[0][1], headers, self.width)
        if asked.last:
            del self.asked[tracking]


class RollingSide:
    """Java's list of the requests of a rolling batch, and its strict ping-pong."""

    def __init__(self, java: FakeJava) -> None:
        self.live: list[JavaRequest] = []
        self.steps = 0
        self._java = java
        self._reset = False

    def add(self, body: bytes, properties: Mapping[str, str] | None = None) -> JavaRequest:
        added = JavaRequest(dict(properties or {"requestId": "r"}), body)
        self.live.append(added)
        return added

    def send(self) -> None:
        """The first half of a step."""
        live = self.live
        properties: dict[str, str | None] = {"batch_size": str(len(live)), "handler": "handle"}
        if self._reset:
            properties["reset_rollingbatch"] = "true"
            self._reset = False
        content: list[tuple[str | None, bytes]] = []
        for place, one in enumerate(live):
            if one.next_token is None:
                for key, value in one.properties.items():
                    properties[f"batch_{place:03}.{key}"] = value
                content.append((f"batch_{place:03}.data", one.body))
                content.append((f"batch_{place:03}.seed", b"1234"))
            else:
                content.append((f"batch_{place:03}.data", b""))
        self._java.send(properties, content)

    async def receive(self) -> None:
        """The second half."""
        reply = await self._java.reply()
        live = self.live
        self.steps += 1
        if reply.code != 200 or len(reply.content) != len(live):
            for one in live:
                one.fail(reply.code if reply.code != 200 else 500, "Batch inference failed")
            self.live = []
            self._reset = True
            return
        for place, one in enumerate(live):
            prefix = f"batch_{place}_"
            headers = [
                (key.removeprefix(prefix), value)
                for key, value in reply.properties.items()
                if key.startswith(prefix)
            ]
            one.add_response(reply.content[place][1], headers, self._java.width)
        self.live = [one for one in live if not one.last]

    async def step(self) -> None:
        self.send()
        await self.receive()

    async def finish(self, *wanted: JavaRequest) -> None:
        """Step until these are over; all of them where none is named."""
        async with asyncio.timeout(SECONDS):
            while self.live and not (wanted and all(one.last for one in wanted)):
                await self.step()
