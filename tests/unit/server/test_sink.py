"""The sink's promise: sends run at once, one at a time, in order, whatever the connection does."""

from __future__ import annotations

import asyncio
import random

import pytest
from starlette.types import Message

from lmi.core import EngineError, Head, LmiError
from lmi.server import ServerConfig
from lmi.server.errors import Failure, failure
from lmi.server.sink import HttpSink

pytestmark = pytest.mark.anyio


class Connection:
    """An ASGI `send` that suspends while it is held, and keeps what was sent."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.sent: list[Message] = []
        self.under_way = 0
        self.most = 0

    async def send(self, message: Message) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        while not self.open.is_set():
            await self.open.wait()
            await asyncio.sleep(0)
        self.sent.append(message)
        self.under_way -= 1

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def sink_of(connection: Connection, tasks: set[asyncio.Task[None]], ends: list[int]) -> HttpSink:
    def answer(error: LmiError) -> Failure:
        return failure(error, ServerConfig())

    return HttpSink(connection.send, [], answer, lambda: ends.append(1), tasks)


async def settled(tasks: set[asyncio.Task[None]]) -> None:
    while tasks:
        await asyncio.gather(*tasks)


async def test_an_open_connection_gets_every_write_at_once_without_a_task() -> None:
    connection, tasks, ends = Connection(), set[asyncio.Task[None]](), list[int]()
    sink = sink_of(connection, tasks, ends)
    sink.write(b"a", False)
    assert [message["type"] for message in connection.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    sink.write(b"b", True)
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"b", "more_body": False}
    assert not tasks
    assert ends == [1]


@pytest.mark.parametrize("seed", range(20))
async def test_a_connection_that_stalls_at_any_point_gets_the_same_bytes_one_send_at_a_time(
    seed: int,
) -> None:
    rng = random.Random(seed)
    connection, tasks, ends = Connection(), set[asyncio.Task[None]](), list[int]()
    sink = sink_of(connection, tasks, ends)
    pieces = [bytes([65 + number % 26]) * rng.randrange(1, 5) for number in range(40)]
    for number, piece in enumerate(pieces):
        if rng.random() < 0.3:
            connection.open.clear()
        sink.write(piece, number == len(pieces) - 1)
        if rng.random() < 0.3:
            connection.open.set()
        if rng.random() < 0.5:
            await asyncio.sleep(0)
    connection.open.set()
    await settled(tasks)
    assert connection.body == b"".join(pieces)
    assert connection.most == 1
    assert [message["type"] for message in connection.sent].count("http.response.start") == 1
    more = [message["more_body"] for message in connection.sent[1:]]
    assert more == [True] * (len(more) - 1) + [False]
    assert ends == [1]


async def test_what_waits_behind_a_stalled_send_leaves_as_one() -> None:
    connection, tasks, ends = Connection(), set[asyncio.Task[None]](), list[int]()
    sink = sink_of(connection, tasks, ends)
    sink.write(b"a", False)
    connection.open.clear()
    for piece in (b"b", b"c", b"d"):
        sink.write(piece, False)
    connection.open.set()
    await sink.sent()
    assert not tasks
    assert [message["body"] for message in connection.sent[1:]] == [b"a", b"b", b"cd"]
    sink.write(b"e", True)
    assert connection.body == b"abcde"


async def test_a_failure_is_a_whole_answer_of_its_own() -> None:
    connection, tasks, ends = Connection(), set[asyncio.Task[None]](), list[int]()
    sink = sink_of(connection, tasks, ends)
    sink.describe(Head(headers=(("content-type", "application/jsonlines"), ("x-a", "b"))))
    sink.fail(EngineError("out of luck"))
    start, body = connection.sent
    assert start["status"] == sink.status == 424
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": str(len(body["body"])).encode(),
    }
    assert body["body"] == b'{"code":424,"error":"out of luck"}'
    assert ends == [1]


async def test_a_client_that_leaves_during_a_stalled_send_leaves_nothing_behind() -> None:
    connection, tasks, ends = Connection(), set[asyncio.Task[None]](), list[int]()
    sink = sink_of(connection, tasks, ends)
    connection.open.clear()
    sink.write(b"a", False)
    [task] = tasks
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not tasks
