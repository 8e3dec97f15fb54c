"""A session over a function: the same life as over an engine, and each call ends once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lmi.core import (
    Call,
    EngineDead,
    EngineError,
    Head,
    LmiError,
    ModelError,
    Overloaded,
    Piece,
    Unavailable,
)
from lmi.session import FunctionCall, FunctionConfig, FunctionSession, Progress, State
from tests.support.scripted_function import ScriptedFunction
from tests.unit.session.conftest import Kept, until

pytestmark = pytest.mark.anyio

CALL = Call((("data", b"x"),))


@asynccontextmanager
async def started(
    max_queue: int = 1000, concurrency: int = 1
) -> AsyncIterator[tuple[FunctionSession, ScriptedFunction]]:
    function = ScriptedFunction(concurrency)
    session = FunctionSession(FunctionConfig("m", max_queue), lambda progress: function)
    session.start()
    await session.ready()
    try:
        yield session, function
    finally:
        await session.close()
        assert function.closed == 1


def accept(session: FunctionSession) -> tuple[FunctionCall, Kept]:
    sink = Kept()
    return session.accept(CALL, sink), sink


async def test_an_answer_is_described_then_written() -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        assert function.submitted[function.last] is CALL
        assert session.held == 1
        function.answer(function.last, b"hello", status=201)
        await sink.ended.wait()
        assert sink.head == Head(201, "", (("content-type", "x/y"),))
        assert sink.data == b"hello"
        assert session.held == 0
        assert session.measures.outcomes == {"ok": 1}
        assert session.measures.accepted == 1


async def test_what_one_turn_brings_of_a_stream_is_one_write() -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        number = function.last
        function.bring(Piece(number, b"a", Head()), Piece(number, b"b"))
        await until(lambda: bool(sink.writes))
        function.bring(Piece(number, b"c"), Piece(number, last=True))
        await sink.ended.wait()
        assert sink.writes == [b"ab", b"c"]


@pytest.mark.parametrize(
    ("content_type", "end"),
    [
        ("application/jsonlines", b'{"code":424,"error":"broken"}\n'),
        ("text/event-stream", b'data: {"code":424,"error":"broken"}\n\n'),
    ],
)
async def test_an_error_after_the_first_byte_is_said_in_the_stream(
    content_type: str, end: bytes
) -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        head = Head(headers=(("content-type", content_type),))
        function.bring(Piece(function.last, b"a", head))
        await until(lambda: bool(sink.writes))
        function.fail(function.last, EngineError("broken"))
        await sink.ended.wait()
        assert sink.writes == [b"a", end]
        assert session.measures.outcomes == {"error": 1}


async def test_an_error_before_the_first_byte_is_the_answer() -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        function.fail(function.last, EngineError("broken"))
        await sink.ended.wait()
        assert str(sink.error) == "broken"


async def test_an_answer_that_says_an_error_counts_as_one() -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        function.answer(function.last, b"{}", status=424)
        await sink.ended.wait()
        assert session.measures.outcomes == {"error": 1}


async def test_a_client_that_leaves_cancels_its_call_and_hears_nothing_more() -> None:
    async with started() as (session, function):
        live, sink = accept(session)
        number = function.last
        live.cancel()
        live.cancel()
        assert function.cancelled == [number]
        assert not live.open
        function.answer(number)
        _, other = accept(session)
        function.answer(function.last)
        await other.ended.wait()
        assert not sink.ends
        assert session.measures.outcomes == {"cancelled": 1, "ok": 1}


async def test_more_calls_than_may_wait_are_refused_with_a_time() -> None:
    async with started(max_queue=2, concurrency=1) as (session, function):
        for _ in range(3):
            accept(session)
        with pytest.raises(Overloaded) as caught:
            accept(session)
        assert caught.value.retry_after is not None
        function.answer(function.last)
        accept(session)


async def test_while_no_worker_is_up_health_is_red_and_calls_wait() -> None:
    async with started() as (session, function):
        function.workers = 0
        assert session.health().state is State.RESTARTING
        _, sink = accept(session)
        function.workers = 1
        assert session.health().ready
        function.answer(function.last)
        await sink.ended.wait()


async def test_when_no_worker_comes_back_everybody_is_told_and_nobody_is_let_in() -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        function.die(EngineDead("the disk is gone"))
        await sink.ended.wait()
        assert str(sink.error) == "the disk is gone"
        assert session.health().state is State.FAILED
        with pytest.raises(Unavailable, match="the disk is gone"):
            accept(session)
        await until(lambda: function.closed == 1)


async def test_draining_lets_calls_finish_and_ends_those_that_do_not() -> None:
    async with started() as (session, function):
        _, quick = accept(session)
        number = function.last
        _, slow = accept(session)
        draining = asyncio.ensure_future(session.drain(0.1))
        await until(lambda: session.health().state is State.DRAINING)
        with pytest.raises(Unavailable):
            accept(session)
        function.answer(number)
        await draining
        assert quick.data == b"ok"
        assert isinstance(slow.error, Unavailable)


async def test_draining_ends_with_the_last_call() -> None:
    async with started() as (session, function):
        _, sink = accept(session)
        async with asyncio.timeout(20):
            draining = asyncio.ensure_future(session.drain(3600))
            await until(lambda: session.health().state is State.DRAINING)
            function.answer(function.last)
            await draining
        assert sink.data == b"ok"


async def test_a_function_that_cannot_be_loaded_is_a_failure_with_its_reason() -> None:
    def load(progress: Progress) -> ScriptedFunction:
        progress("loading the handler", 0, 1)
        raise ModelError("model.py:1: no")

    session = FunctionSession(FunctionConfig("m"), load)
    with pytest.raises(Unavailable):
        accept(session)
    session.start()
    with pytest.raises(ModelError, match=r"model.py:1: no"):
        await session.ready()
    assert session.health().state is State.FAILED
    await session.close()


async def test_a_front_that_fails_harms_its_own_call_only() -> None:
    class Broken(Kept):
        def write(self, data: bytes, last: bool) -> None:
            raise ConnectionError("gone")

        def fail(self, error: LmiError) -> None:
            raise ConnectionError("gone")

    async with started() as (session, function):
        session.accept(CALL, Broken())
        first = function.last
        _, sink = accept(session)
        function.bring(Piece(first, b"a", Head()))
        function.answer(function.last)
        await sink.ended.wait()
        assert function.cancelled == [first]
