"""The load generator counts an answer only when it is as long as was asked for."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.load import asks
from benchmarks.load_client import Load, Measured, Target
from benchmarks.load_dialects import DIALECTS

GIVEN = 5  # tokens that the server's answers have


def answer(streamed: bool) -> bytes:
    """Streamed: all tokens in one event, as a server may put them together, then the usage."""
    usage = {"usage": {"completion_tokens": GIVEN}}
    if not streamed:
        body = json.dumps(usage).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    events = [b"data: all\n\n", b"data: " + json.dumps(usage).encode() + b"\n\n"]
    chunks = b"".join([b"%x\r\n%s\r\n" % (len(event), event) for event in events])
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


async def loaded(wanted: int, streamed: bool, requests: int) -> Measured:
    """What `requests` requests for `wanted` tokens measure, by two clients."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                writer.write(answer(streamed))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        every = asks(target, DIALECTS["completions"], ["text"], wanted, streamed)
        load = Load(target, (ask for _, ask in zip(range(requests), every, strict=False)))
        load.closed_loop(2)
        await asyncio.wait_for(load.until_over(), 10)
        await load.stop()
    return load.measured


@pytest.mark.parametrize("streamed", [True, False])
def test_answers_of_the_right_length_are_counted_with_their_tokens(streamed: bool) -> None:
    measured = asyncio.run(loaded(GIVEN, streamed, 6))
    assert not measured.errors
    assert len(measured.whole) == 6
    assert measured.tokens == 6 * GIVEN
    assert len(measured.first) == 6


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("wanted", [GIVEN - 1, GIVEN + 1, 10 * GIVEN])
def test_an_answer_of_another_length_is_an_error(wanted: int, streamed: bool) -> None:
    measured = asyncio.run(loaded(wanted, streamed, 4))
    assert sum(measured.errors.values()) == 4
    assert not measured.whole
    assert measured.tokens == 0
