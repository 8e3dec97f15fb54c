"""The soak can fail: each thing that it looks for is found where it is wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable

import pytest

from benchmarks.soak import Soaked
from benchmarks.soak_client import Client, Tally
from benchmarks.soak_requests import Ask, random_ask
from benchmarks.soak_watch import Memory, growth

ENDED = 'lmi_requests_ended_total{{outcome="{}"}}'
RIGHT = {
    "lmi_requests_accepted_total": 12.0,
    ENDED.format("ok"): 10.0,
    ENDED.format("cancelled"): 2.0,
    ENDED.format("error"): 0.0,
    'lmi_requests_refused_total{status="424"}': 3.0,
    "lmi_requests_running": 0.0,
    "lmi_requests_waiting": 0.0,
    "lmi_kv_blocks_used": 0.0,
}


def soaked(seconds: float = 600.0) -> Soaked:
    """A run in which nothing was wrong."""
    tally = Tally(answered=9, left=4)
    tally.refused[424] = 3
    return Soaked(seconds, tally, Memory([100.0] * 600, [500.0] * 600), dict(RIGHT))


def test_a_clean_run_has_nothing_wrong() -> None:
    assert soaked().wrong() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lmi_requests_accepted_total", 13.0),
        (ENDED.format("ok"), 8.0),
        (ENDED.format("error"), 1.0),
        ('lmi_requests_refused_total{status="424"}', 2.0),
        ("lmi_kv_blocks_used", 1.0),
        ("lmi_requests_running", 1.0),
    ],
)
def test_a_server_that_counts_otherwise_is_found(name: str, value: float) -> None:
    run = soaked()
    run.metrics[name] = value
    assert run.wrong()


def test_answers_that_clients_never_saw_are_found() -> None:
    run = soaked()
    run.tally.answered = 5
    assert any("5 by its clients" in each for each in run.wrong())


def test_memory_that_grows_is_found_only_where_the_run_is_long_enough() -> None:
    run, short = soaked(), soaked(seconds=120.0)
    for each in (run, short):
        each.memory.server = [100.0 + second * 0.01 for second in range(600)]
    assert run.wrong() == ["the server's memory grew by 4.0% since minute 3"]
    assert short.wrong() == []
    assert growth([100.0] * 600, 180.0) == 0.0


def answer(body: bytes, request_id: str, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nx-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


WHOLE = json.dumps({"generated_text": "hello there"}).encode()
ASK = Ask("whole", b'{"inputs": "hello"}', right=lambda body: None)
WRONG = {
    "another request's answer": lambda own: answer(WHOLE, "somebody-else"),
    "two answers": lambda own: answer(WHOLE, own) * 2,
    "a failure": lambda own: answer(b"{}", own, "500 Internal Server Error"),
    "a refusal of a right request": lambda own: answer(b"{}", own, "424 Failed Dependency"),
    "half an answer": lambda own: answer(WHOLE, own)[:-3],
    "no answer": lambda own: b"",
    "no HTTP": lambda own: b"hello\r\n\r\n",
}


async def tally_of(reply: Callable[[str], bytes], ask: Ask) -> Tally:
    """What a client counts whose server says `reply` to each request and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(reply(head.partition("x-request-id: ")[2].split("\r\n")[0]))
        await writer.drain()
        writer.close()

    tally = Tally()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = Client(port, "client", random.Random(0), tally)
        await client.ask_once(ask)
        await client.leave()
    return tally


def test_a_right_answer_is_no_violation() -> None:
    tally = asyncio.run(tally_of(lambda own: answer(WHOLE, own), ASK))
    assert (tally.answered, tally.violations) == (1, [])


@pytest.mark.parametrize("reply", WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_a_violation(reply: Callable[[str], bytes]) -> None:
    assert asyncio.run(tally_of(reply, ASK)).violation_count == 1


def test_each_kind_of_request_knows_a_wrong_answer() -> None:
    rng = random.Random(0)
    asks = {ask.kind: ask for ask in (random_ask(rng) for _ in range(500))}
    wrong = {
        "whole": b'{"generated_text": "something else"}',
        "list": b'{"generated_text": "one for all"}',
        "n > 1": b'{"details": {"best_of_sequences": []}}',
        "streamed": b'{"token": {"text": "a"}}\n{"token": {"text": "b"}, "generated_text": "b"}\n',
    }
    for kind, body in wrong.items():
        assert asks[kind].right(body) is not None, kind
    assert asks["streamed"].right(b'{"token": {"text": "a"}, "generated_text": "a"}\n') is None
    for kind in ("bad body", "far too long"):
        tally = asyncio.run(tally_of(lambda own: answer(WHOLE, own), asks[kind]))
        assert tally.violation_count == 1, kind
