"""Loading, dying, coming back, draining: who is told what, and when."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lmi.core import (
    EngineDead,
    Finish,
    LmiError,
    ModelError,
    OutOfMemory,
    Unavailable,
)
from lmi.session import Loaded, Session, SessionConfig, State
from lmi.session.admission import DrainRate
from tests.support.scripted import ScriptedEngine
from tests.unit.session.conftest import QUICK, Engines, Kept, Started, request, until

pytestmark = pytest.mark.anyio


async def test_nothing_is_ready_before_a_real_token_came_out() -> None:
    engines = Engines()
    gate = threading.Event()
    engines.before = lambda: None if gate.wait(20) else pytest.fail("nobody opened the gate")
    session = Session(QUICK, engines.load)
    reported: list[tuple[str, int, int]] = []
    session.start(lambda *phase: reported.append(phase))
    await until(lambda: session.health().reason == "loading 25%")
    assert session.health().state is State.LOADING
    with pytest.raises(Unavailable) as caught:
        session.open(request(session), Kept())
    assert caught.value.retry_after is not None
    assert "loading" in str(caught.value)
    gate.set()
    await session.ready()
    assert session.health().ready
    assert reported == [("loading", 1, 4), ("warming up", 0, 0)]
    assert [each.sampling.max_new_tokens for each in engines.engine.submitted] == [1]
    # A warm-up is no client's request.
    assert session.measures.accepted == session.measures.completion_tokens == 0
    await session.close()
    assert engines.made[0].closed == 1


@pytest.mark.parametrize("error", [ModelError("config.json is missing"), OutOfMemory("5 GiB")])
async def test_a_model_that_cannot_be_loaded_is_a_failure_with_its_reason(error: LmiError) -> None:
    def load(progress: object) -> Loaded:
        raise error

    session = Session(QUICK, load)
    session.start()
    with pytest.raises(type(error), match=str(error)):
        await session.ready()
    assert session.health().state is State.FAILED
    assert session.health().reason == str(error)
    with pytest.raises(Unavailable) as caught:
        session.open(request(session), Kept())
    assert caught.value.retry_after is None
    await session.close()


async def test_a_fault_in_loading_is_a_failure_and_not_a_hang(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load(progress: object) -> Loaded:
        raise ZeroDivisionError("a bug")

    session = Session(QUICK, load)
    session.start()
    with pytest.raises(EngineDead, match="ZeroDivisionError: a bug"):
        await session.ready()
    assert session.health().state is State.FAILED
    assert "ZeroDivisionError" in caplog.text
    await session.close()


@pytest.mark.parametrize("answer", ["dies", "hangs", "says nothing"])
async def test_an_engine_that_cannot_bring_one_token_is_not_ready(answer: str) -> None:
    class Mute(ScriptedEngine):
        def submit(self, asked: object, /) -> None:
            super().submit(asked)  # type: ignore[arg-type]
            if answer == "dies":
                self.die("out of luck")
            elif answer == "says nothing":
                self.cancel(self.submitted[-1].id)

    made: list[Mute] = []

    def load(progress: object) -> Loaded:
        made.append(Mute())
        return Loaded(made[-1])

    session = Session(SessionConfig("m", predict_timeout=0.05), load)
    session.start()
    with pytest.raises(EngineDead):
        await session.ready()
    assert session.health().state is State.FAILED
    assert len(made) == 1
    await session.close()
    assert made[0].closed == 1


async def test_when_the_engine_dies_everybody_is_told_once_and_it_comes_back(
    started: Started,
) -> None:
    async with started() as (session, engines):
        dead = engines.engine
        whole, pieces = Kept(), Kept()
        session.open(request(session), whole)
        session.open(request(session, stream=True), pieces)
        dead.say(dead.submitted[-1].id, "a")
        dead.wake()
        await until(lambda: bool(pieces.writes))
        gate = threading.Event()
        engines.before = lambda: None if gate.wait(20) else pytest.fail("nobody opened the gate")
        dead.die("signal 9")
        await whole.ended.wait()
        await pieces.ended.wait()
        # No health check may see green once a client was told.
        assert session.health().state is State.RESTARTING
        assert isinstance(whole.error, EngineDead)
        assert whole.error.code == 500
        assert b'"error_msg": "signal 9"' in pieces.writes[-1]
        assert (whole.ends, pieces.ends) == (1, 1)
        with pytest.raises(Unavailable) as caught:
            session.open(request(session), Kept())
        assert caught.value.retry_after is not None
        gate.set()
        await until(lambda: session.health().ready)
        assert dead.closed == 1
        assert session.measures.engine_deaths == 1
        after = Kept()
        session.open(request(session), after)
        engines.engine.say(engines.engine.submitted[-1].id, "b", Finish.EOS)
        engines.engine.wake()
        await after.ended.wait()
        assert after.data == b'{"generated_text": "b"}'


async def test_a_dead_engine_is_noticed_with_nobody_waiting(started: Started) -> None:
    async with started() as (session, engines):
        engines.engine.die()
        await until(lambda: not session.health().ready)
        await until(lambda: session.health().ready)
        assert len(engines.made) == 2


async def test_a_poll_that_raises_something_else_is_a_death_too(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with started() as (session, engines):

        def poll(timeout: float) -> list[object]:
            raise KeyError("a bug")

        engines.engine.poll = poll  # type: ignore[method-assign,assignment]
        sink = Kept()
        session.open(request(session), sink)
        engines.engine.wake()
        await sink.ended.wait()
        assert isinstance(sink.error, EngineDead)
        assert "KeyError" in caplog.text
        await until(lambda: session.health().ready)


async def test_an_engine_that_dies_in_submit_costs_that_request_and_restarts(
    started: Started,
) -> None:
    def refuse(asked: object) -> None:
        if getattr(asked, "prompt", "") == "kill":
            raise EngineDead("broken pipe")

    async with started(refuse=refuse) as (session, engines):
        neighbour = Kept()
        session.open(request(session), neighbour)
        with pytest.raises(Unavailable):
            session.open(request(session, "kill"), Kept())
        assert isinstance(neighbour.error, EngineDead)
        await until(lambda: session.health().ready)
        assert len(engines.made) == 2


async def test_restarts_end_at_the_cap_and_say_why(started: Started) -> None:
    config = SessionConfig("m", restart_limit=2, restart_backoff=0.001)
    async with started(config) as (session, engines):
        attempts = []

        def before() -> None:
            attempts.append(1)
            raise ModelError("the disk is gone")

        engines.before = before
        engines.engine.die()
        await until(lambda: session.health().state is State.FAILED)
        assert len(attempts) == 2
        assert "given up after 2 restarts" in session.health().reason
        assert "the disk is gone" in session.health().reason


async def test_no_restart_is_tried_where_none_is_allowed(started: Started) -> None:
    async with started(SessionConfig("m", restart_limit=0)) as (session, engines):
        engines.engine.die("signal 9")
        await until(lambda: session.health().state is State.FAILED)
        assert "signal 9" in session.health().reason
        assert len(engines.made) == 1


async def test_an_engine_that_keeps_dying_is_given_up(started: Started) -> None:
    config = SessionConfig("m", restart_limit=2, restart_backoff=0.001)
    async with started(config) as (session, engines):
        for made in (1, 2, 3):
            await until(lambda made=made: session.health().ready and len(engines.made) == made)
            engines.engine.die()
            await until(lambda: not session.health().ready)
        await until(lambda: session.health().state is State.FAILED)


async def test_a_long_life_clears_the_record(started: Started) -> None:
    config = SessionConfig("m", restart_limit=1, restart_backoff=0.001, restart_reset=0.0)
    async with started(config) as (session, engines):
        for made in (1, 2, 3):
            await until(lambda made=made: session.health().ready and len(engines.made) == made)
            await until(lambda: len(session._life.tasks) == 1)
            engines.engine.die()
            await until(lambda: not session.health().ready)
        await until(lambda: session.health().ready)


async def test_an_engine_that_owes_tokens_and_brings_none_is_restarted(started: Started) -> None:
    async with started(SessionConfig("m", predict_timeout=0.2, restart_backoff=0.001)) as found:
        session, engines = found
        hung = engines.engine
        sink = Kept()
        session.open(request(session), sink)
        await sink.ended.wait()
        assert isinstance(sink.error, EngineDead)
        assert "no token for 0.2 s" in str(sink.error)
        await until(lambda: session.health().ready)
        assert hung.closed == 1


async def test_an_idle_engine_owes_nothing(started: Started) -> None:
    async with started(SessionConfig("m", predict_timeout=0.05)) as (session, _):
        pump = session._pump
        assert pump is not None
        pump.last_progress -= 3600
        pump.check_progress(0.05)
        assert session.health().ready
        sink = Kept()
        session.open(request(session), sink)
        pump.check_progress(0.05)
        assert not sink.ends


async def test_draining_refuses_the_new_and_lets_the_live_finish(started: Started) -> None:
    async with started() as (session, engines):
        sink = Kept()
        session.open(request(session), sink)
        draining = asyncio.create_task(session.drain(20.0))
        await until(lambda: session.health().state is State.DRAINING)
        with pytest.raises(Unavailable) as caught:
            session.open(request(session), Kept())
        assert caught.value.retry_after is not None
        engines.engine.say(engines.engine.submitted[-1].id, "a", Finish.EOS)
        engines.engine.wake()
        await draining
        assert sink.data == b'{"generated_text": "a"}'


async def test_after_the_grace_the_rest_is_ended_with_one_error_each(started: Started) -> None:
    async with started() as (session, engines):
        whole, pieces = Kept(), Kept()
        session.open(request(session), whole)
        session.open(request(session, stream=True), pieces)
        engine = engines.engine
        ids = [each.id for each in engine.submitted[-2:]]
        engine.say(ids[1], "a")
        engine.wake()
        await until(lambda: bool(pieces.writes))
        await session.drain(0.01)
        assert isinstance(whole.error, Unavailable)
        assert b"shutting down" in pieces.writes[-1]
        assert sorted(engine.cancelled) == ids
        assert (whole.ends, pieces.ends) == (1, 1)


async def test_an_engine_that_dies_while_draining_is_not_restarted(started: Started) -> None:
    async with started() as (session, engines):
        sink = Kept()
        session.open(request(session), sink)
        draining = asyncio.create_task(session.drain(20.0))
        await until(lambda: session.health().state is State.DRAINING)
        engines.engine.die()
        await draining
        assert isinstance(sink.error, EngineDead)
        assert session.health().state is State.DRAINING
        assert len(engines.made) == 1


async def test_closing_while_loading_closes_what_comes_late() -> None:
    engines = Engines()
    gate = threading.Event()
    engines.before = lambda: None if gate.wait(20) else pytest.fail("nobody opened the gate")
    session = Session(QUICK, engines.load)
    session.start()
    await until(lambda: session.health().reason == "loading 25%")
    await session.close()
    with pytest.raises(Unavailable):
        await session.ready()
    assert session.health().state is State.CLOSED
    gate.set()
    await until(lambda: bool(engines.made) and engines.made[0].closed == 1)


def test_the_drain_rate_is_what_finished_per_second_lately() -> None:
    rate = DrainRate(now=0.0)
    assert rate.seconds_for(100) == 1.0  # nothing known yet
    for second in range(1, 60):
        rate.update(second * 10, now=float(second))
    assert rate.seconds_for(100) == 10.0
    assert rate.seconds_for(1) == 1.0
    assert rate.seconds_for(10**6) == 60.0
    for second in range(60, 200):
        rate.update(590 + (second - 59) * 2, now=float(second))
    assert rate.seconds_for(100) == 50.0
