"""Real connections: clients that leave, dawdle or shout, and a server that has to go."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import httpx
import pytest

from lmi.core import Engine, Finish
from lmi.engines.echo import EchoConfig, EchoEngine
from lmi.server import ServerConfig, bind
from lmi.session import SessionConfig, State
from tests.support.engines.threaded import ThreadedEngine
from tests.support.scripted import ScriptedEngine, script, token
from tests.unit.server.conftest import SLOW_ECHO, Plan, Served, on_a_port, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LONG = {"inputs": "hello world", "parameters": {"max_new_tokens": 4000}}
SHORT = {"inputs": "hello world", "parameters": {"max_new_tokens": 4}}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def scripted() -> Engine:
    engine = ScriptedEngine(max_batch=1)
    engine.answer_first = "warm"
    return engine


def engine_of(served: Served) -> ScriptedEngine:
    engine = served.engines[-1]
    assert isinstance(engine, ScriptedEngine)
    return engine


def raw(body: dict[str, object], **headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join(
        ["POST /invocations HTTP/1.1", "host: x", f"content-length: {len(data)}", *lines]
    )
    return head.encode() + b"\r\n\r\n" + data


async def connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_its_generation_before_the_next_step(
    stream: bool,
) -> None:
    async with on_a_port(Plan(scripted)) as served:
        engine = engine_of(served)
        _, leaving = await connect(served)
        leaving.write(raw({**LONG, "stream": stream}))
        await until(lambda: len(engine.submitted) == 2)
        number = engine.submitted[-1].id
        engine.say(number, "a")
        engine.wake()
        leaving.close()
        # No token comes meanwhile: it is the connection that tells, not a failing write.
        await until(lambda: engine.cancelled == [number])
        assert served.session.held == 0
        assert served.session.measures.outcomes == {"cancelled": 1}


async def test_a_client_that_leaves_the_queue_is_cancelled_too() -> None:
    async with on_a_port(Plan(scripted)) as served:
        engine = engine_of(served)
        first = asyncio.create_task(served.client.post("/invocations", json=SHORT))
        await until(lambda: len(engine.submitted) == 2)
        _, leaving = await connect(served)
        leaving.write(raw(LONG))
        await until(lambda: len(engine.submitted) == 3)
        leaving.close()
        await until(lambda: engine.cancelled == [engine.submitted[2].id])
        engine.say(engine.submitted[1].id, "a", Finish.EOS)
        engine.wake()
        assert (await first).status_code == 200


async def test_a_client_that_leaves_within_its_body_costs_nothing() -> None:
    async with on_a_port(Plan(scripted)) as served:
        _, leaving = await connect(served)
        leaving.write(raw(LONG)[:-5])
        await leaving.drain()
        leaving.close()
        other = asyncio.create_task(served.client.post("/invocations", json=SHORT))
        engine = engine_of(served)
        await until(lambda: len(engine.submitted) == 2)
        engine.say(engine.submitted[1].id, "a", Finish.EOS)
        engine.wake()
        assert (await other).status_code == 200
        assert not engine.cancelled


async def test_tokens_are_sent_when_they_come() -> None:
    async with on_a_port(Plan(scripted)) as served:
        engine = engine_of(served)
        reader, writer = await connect(served)
        writer.write(raw({**SHORT, "stream": True}))
        await until(lambda: len(engine.submitted) == 2)
        number = engine.submitted[-1].id
        for text in ("one", "two"):
            engine.say(number, text)
            engine.wake()
            async with asyncio.timeout(10):
                assert text.encode() in await reader.readuntil(b"}}\n\r\n")
        engine.say(number, "end", Finish.EOS)
        engine.wake()
        assert b"onetwoend" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_many_requests_share_one_connection_in_turn() -> None:
    async with on_a_port(Plan()) as served:
        reader, writer = await connect(served)
        writer.write(raw(SHORT) * 20)
        for _ in range(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = next(line for line in head.splitlines() if line.startswith(b"content-length"))
            assert json.loads(await reader.readexactly(int(length[16:])))["generated_text"]
        writer.close()


async def test_a_client_that_leaves_behind_several_requests_stops_them_all() -> None:
    async with on_a_port(Plan(scripted)) as served:
        engine = engine_of(served)
        _, leaving = await connect(served)
        leaving.write(raw(LONG) * 3)
        await until(lambda: len(engine.submitted) == 2)
        leaving.close()
        await until(lambda: served.session.held == 0)
        assert engine.cancelled == [each.id for each in engine.submitted[1:]]


async def test_a_client_that_reads_slowly_gets_everything_and_holds_up_nobody() -> None:
    async with on_a_port(Plan(scripted)) as served:
        engine = engine_of(served)
        reader, writer = await connect(served)
        writer.write(raw({**SHORT, "stream": True}))
        await until(lambda: len(engine.submitted) == 2)
        number = engine.submitted[-1].id
        piece = "x" * 400_000
        # Far more than the sockets hold: the sending must suspend.
        for _ in range(30):
            engine.say(number, piece)
            engine.wake()
            await asyncio.sleep(0)
        ping = await served.client.get("/ping")
        assert ping.status_code == 200
        engine.push(*script([token("end")], Finish.EOS, request_id=number))
        engine.wake()
        await until(lambda: served.session.held == 0)
        received = bytearray()
        while not received.endswith(b"\r\n0\r\n\r\n"):
            part = await reader.read(1 << 20)
            assert part
            received += part
        assert received.count(piece.encode()) == 31 + 29  # each token, and all in the last line
        writer.close()


async def test_a_head_that_is_too_large_is_refused() -> None:
    async with on_a_port(Plan(server=ServerConfig(port=0, max_head_size=2000))) as served:
        for junk in (b"a: " + b"x" * 4000, b"x: y\r\n" * 1000):
            reader, writer = await connect(served)
            writer.write(b"POST /invocations HTTP/1.1\r\n" + junk)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b"2000 bytes" in answer
            writer.close()
        assert (await served.client.post("/invocations", json=SHORT)).is_success


async def test_a_head_or_a_body_that_never_ends_is_given_up() -> None:
    plan = Plan(server=ServerConfig(port=0, head_timeout=0.2, body_timeout=0.2))
    async with on_a_port(plan) as served:
        for start in (b"", b"POST /invocations HTTP/1.1\r\na: b", raw(SHORT)[:-3]):
            reader, writer = await connect(served)
            writer.write(start)
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"0.2 s" in answer
            writer.close()
        # A connection that waits between two requests is not a head that is late.
        assert (await served.client.post("/invocations", json=SHORT)).is_success
        await asyncio.sleep(0.3)
        assert (await served.client.post("/invocations", json=SHORT)).is_success


async def test_what_is_no_http_is_answered_with_json() -> None:
    async with on_a_port(Plan()) as served:
        reader, writer = await connect(served)
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["code"] == 400
        writer.close()


async def test_a_large_body_is_refused_and_the_client_sees_why() -> None:
    async with on_a_port(Plan(server=ServerConfig(port=0, max_request_size=10_000))) as served:
        answer = await served.client.post("/invocations", content=b"x" * 20_000_000)
        assert answer.status_code == 413
        assert (await served.client.post("/invocations", json=SHORT)).is_success


async def test_a_signal_turns_ping_red_and_lets_the_live_finish() -> None:
    async with on_a_port(Plan(lambda: EchoEngine(SLOW_ECHO))) as served:
        body = {"inputs": "hello world", "stream": True, "parameters": {"max_new_tokens": 100}}
        live = asyncio.create_task(served.client.post("/invocations", json=body))
        await until(lambda: served.session.held == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: served.session.health().state is State.DRAINING)
        ping = await served.client.get("/ping")
        assert ping.status_code == 503
        assert "shutting down" in ping.text
        late = await served.client.post("/invocations", json=SHORT)
        assert late.status_code == 503
        assert "retry-after" in late.headers
        assert len((await live).text.splitlines()) == 100
        assert served.serving is not None
        await served.serving
        assert served.session.health().state is State.CLOSED


async def test_what_outlives_the_grace_ends_with_one_event() -> None:
    plan = Plan(lambda: EchoEngine(SLOW_ECHO), ServerConfig(port=0, grace=0.1))
    async with on_a_port(plan) as served:
        whole = asyncio.create_task(served.client.post("/invocations", json=LONG))
        streamed = asyncio.create_task(
            served.client.post("/invocations", json={**LONG, "stream": True})
        )
        await until(lambda: served.session.held == 2)
        os.kill(os.getpid(), signal.SIGINT)
        assert (await whole).status_code == 503
        lines = (await streamed).text.splitlines()
        assert json.loads(lines[-1])["details"] == {"finish_reason": "error"}
        assert sum("error_msg" in line for line in lines) == 1
        assert served.serving is not None
        await served.serving


async def test_a_second_signal_ends_at_once() -> None:
    async with on_a_port(Plan(scripted)) as served:
        live = asyncio.create_task(served.client.post("/invocations", json=LONG))
        await until(lambda: served.session.held == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: served.session.health().state is State.DRAINING)
        os.kill(os.getpid(), signal.SIGTERM)
        assert served.serving is not None
        async with asyncio.timeout(10):
            await served.serving
        with pytest.raises(httpx.HTTPError):
            (await live).raise_for_status()


async def test_when_the_engine_dies_streams_end_with_an_event_and_the_next_request_works() -> None:
    async with on_a_port(Plan(lambda: ThreadedEngine(SLOW_ECHO))) as served:
        streams = [
            asyncio.create_task(served.client.post("/invocations", json={**LONG, "stream": True}))
            for _ in range(8)
        ]
        await until(lambda: served.session.measures.completion_tokens > 50)
        engine = served.engines[0]
        assert isinstance(engine, ThreadedEngine)
        async with asyncio.timeout(1):
            engine.die()
            answers = await asyncio.gather(*streams)
        for answer in answers:
            assert sum("error_msg" in line for line in answer.text.splitlines()) == 1
            assert "error_msg" in answer.text.splitlines()[-1]
        await until(lambda: served.session.health().ready)
        assert (await served.client.post("/invocations", json=SHORT)).is_success
        assert len(served.engines) == 2


async def test_a_port_that_is_taken_is_known_before_anything_is_loaded() -> None:
    async with on_a_port(Plan()) as served:
        with pytest.raises(OSError, match="in use"):
            bind(ServerConfig(port=served.port))


async def test_a_crowd_gets_exactly_its_own_answers() -> None:
    plan = Plan(lambda: EchoEngine(EchoConfig(max_batch=16)), session=SessionConfig("m"))
    async with on_a_port(plan) as served:

        async def one(number: int) -> None:
            text = f"number {number} says something of its own. "
            body = {"inputs": text, "stream": number % 2 == 0, "parameters": {"max_new_tokens": 40}}
            answer = await served.client.post("/invocations", json=body)
            assert answer.status_code == 200
            said = json.loads(answer.text.splitlines()[-1])["generated_text"]
            assert said
            assert (text * 10).startswith(said)

        await asyncio.gather(*(one(number) for number in range(100)))
        assert served.session.measures.outcomes == {"ok": 100}
        assert served.session.stats().kv_blocks_used == 0
