"""What happens to requests while the engine is well."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from lmi.core import (
    BadPayload,
    Delta,
    EngineDead,
    Finish,
    GenerationRequest,
    Overloaded,
    TooLong,
    Usage,
)
from lmi.engines.echo import EchoConfig
from lmi.session import Live, Loaded, Session, SessionConfig, collect, stream
from tests.support.engines.burst import BurstEngine
from tests.support.scripted import script, token
from tests.unit.session.conftest import QUICK, Kept, Started, request, until

pytestmark = pytest.mark.anyio


async def test_an_answer_is_whole_or_comes_step_by_step(started: Started) -> None:
    async with started() as (session, engines):
        whole, pieces = Kept(), Kept()
        session.open(request(session), whole)
        session.open(request(session, stream=True), pieces)
        engine = engines.engine
        first, second = [each.id for each in engine.submitted[-2:]]
        for number in (first, second):
            engine.say(number, "a")
        engine.wake()
        await until(lambda: len(pieces.writes) == 1)
        assert not whole.writes
        for number in (first, second):
            engine.say(number, "b", Finish.LENGTH)
        engine.wake()
        await whole.ended.wait()
        await pieces.ended.wait()
        assert whole.writes == [b'{"generated_text": "ab"}']
        assert len(pieces.writes) == 2
        assert json.loads(pieces.writes[1])["generated_text"] == "ab"
        assert session.held == 0
        assert session.measures.outcomes == {"ok": 2}
        assert session.measures.completion_tokens == 4


async def test_all_wakes_of_a_step_are_one_poll_and_all_tokens_of_a_request_one_write(
    started: Started,
) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        sinks = [Kept() for _ in range(3)]
        for sink in sinks:
            session.open(request(session, stream=True), sink)
        ids = [each.id for each in engine.submitted[-3:]]
        polls = engine.polls
        for text in "abcd":
            for number in ids:
                engine.say(number, text)
                engine.wake()
        await until(lambda: all(sink.writes for sink in sinks))
        assert engine.polls == polls + 1
        assert [len(sink.writes) for sink in sinks] == [1, 1, 1]
        assert [sink.data.count(b"\n") for sink in sinks] == [4, 4, 4]


async def test_a_client_that_leaves_is_cancelled_at_once_and_hears_nothing_more(
    started: Started,
) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        sink, other = Kept(), Kept()
        live = session.open(request(session, stream=True), sink)
        session.open(request(session), other)
        number, neighbour = [each.id for each in engine.submitted[-2:]]
        engine.say(number, "a")
        live.cancel()
        live.cancel()
        assert engine.cancelled == [number]
        engine.say(neighbour, "b", Finish.LENGTH)
        engine.wake()
        await other.ended.wait()
        assert not sink.writes
        assert not sink.ends
        assert session.held == 0
        assert session.measures.outcomes == {"cancelled": 1, "ok": 1}


async def test_a_finished_request_is_not_cancelled(started: Started) -> None:
    async with started() as (session, engines):
        sink = Kept()
        live = session.open(request(session), sink)
        engines.engine.say(engines.engine.submitted[-1].id, "a", Finish.EOS)
        engines.engine.wake()
        await sink.ended.wait()
        live.cancel()
        assert not engines.engine.cancelled


async def test_a_request_that_is_over_cannot_fail_any_more(started: Started) -> None:
    async with started() as (session, engines):
        finished, left = Kept(), Kept()
        lives = [session.open(request(session), sink) for sink in (finished, left)]
        engines.engine.say(engines.engine.submitted[1].id, "a", Finish.EOS)
        engines.engine.wake()
        await finished.ended.wait()
        lives[1].cancel()
        for live in lives:
            live.fail(EngineDead("too late"))
        assert (finished.ends, finished.error) == (1, None)
        assert (left.ends, left.error) == (0, None)
        assert session.measures.outcomes == {"ok": 1, "cancelled": 1}


async def test_leaving_the_chunks_early_cancels(started: Started) -> None:
    async with started() as (session, engines):
        parsed = request(session, stream=True)
        chunks = stream(lambda sink: session.open(parsed, sink))
        reading = asyncio.ensure_future(anext(chunks))
        engine = engines.engine
        await until(lambda: len(engine.submitted) == 2)
        engine.say(engine.submitted[-1].id, "a")
        engine.wake()
        assert b'"a"' in await reading
        await chunks.aclose()
        assert engine.cancelled == [engine.submitted[-1].id]


async def test_a_full_queue_refuses_and_says_when_to_come_again(started: Started) -> None:
    config = SessionConfig("m", max_queue=2)
    async with started(config, max_batch=1) as (session, engines):
        engine = engines.engine
        sinks = [Kept() for _ in range(3)]
        for sink in sinks:
            session.open(request(session), sink)
        with pytest.raises(Overloaded) as caught:
            session.open(request(session), Kept())
        assert caught.value.code == 429
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
        engine.say(engine.submitted[-1].id, "a", Finish.EOS)
        engine.wake()
        await sinks[-1].ended.wait()
        session.open(request(session), Kept())


async def test_a_cancelled_request_holds_its_place_until_the_engine_has_let_go(
    started: Started,
) -> None:
    async with started(SessionConfig("m", max_queue=0), max_batch=1) as (session, engines):
        live = session.open(request(session), Kept())
        live.cancel()
        with pytest.raises(Overloaded):
            session.open(request(session), Kept())
        await until(lambda: engines.engine.polls >= 2)
        session.open(request(session), Kept())


async def test_more_inputs_than_can_ever_be_held_are_a_bad_request(started: Started) -> None:
    async with started(SessionConfig("m", max_queue=1), max_batch=1) as (session, engines):
        with pytest.raises(BadPayload) as caught:
            session.open(request(session, ["a", "b", "c"]), Kept())
        assert caught.value.field == "inputs"
        session.open(request(session, ["a", "b"]), Kept())
        assert len(engines.engine.submitted) == 3


async def test_a_list_is_answered_in_its_order(started: Started) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        sink = Kept()
        session.open(request(session, ["a", "b", "c"]), sink)
        ids = [each.id for each in engine.submitted[-3:]]
        for number, text in zip(reversed(ids), "zyx", strict=True):
            engine.say(number, text, Finish.EOS)
            engine.wake()
        await sink.ended.wait()
        assert [each["generated_text"] for each in json.loads(sink.data)] == ["x", "y", "z"]


async def test_a_refusal_of_one_input_takes_back_the_others(started: Started) -> None:
    def refuse(asked: GenerationRequest) -> None:
        if asked.prompt == "long":
            raise TooLong("9 tokens, expected at most 4", field="inputs")

    async with started(refuse=refuse) as (session, engines):
        sink = Kept()
        with pytest.raises(TooLong):
            session.open(request(session, ["a", "long", "b"]), sink)
        engine = engines.engine
        assert engine.cancelled == [engine.submitted[-1].id]
        assert session.held == 0
        assert not sink.ends
        await until(lambda: not list(engine.live))


async def test_every_choice_must_finish_before_its_request_is_over(started: Started) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        sink = Kept()
        session.open(request(session, n=2, do_sample=True), sink)
        number = engine.submitted[-1].id
        engine.push(*script([token("a")], Finish.EOS, request_id=number, choice=1))
        engine.wake()
        await until(lambda: engine.polls >= 2)
        assert not sink.ends
        engine.push(*script([token("b")], Finish.EOS, request_id=number, choice=0))
        engine.wake()
        await sink.ended.wait()
        assert json.loads(sink.data)["generated_text"] == "b"


class Faulty(Kept):
    def write(self, data: bytes, last: bool) -> None:
        raise OSError("the front is broken")


async def test_a_fault_in_a_front_harms_its_own_request_only(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        broken, well = Faulty(), Kept()
        session.open(request(session, stream=True), broken)
        session.open(request(session, stream=True), well)
        first, second = [each.id for each in engine.submitted[-2:]]
        engine.say(first, "a")
        engine.say(second, "a", Finish.EOS)
        engine.wake()
        await well.ended.wait()
        assert engine.cancelled == [first]
        assert "could not be delivered" in caplog.text
        assert session.health().ready


async def test_a_fault_in_formatting_harms_its_own_request_only(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        broken, well = Kept(), Kept()
        session.open(request(session), broken)
        session.open(request(session), well)
        first, second = [each.id for each in engine.submitted[-2:]]
        # A choice that nobody asked for: the assembler has no place for it.
        engine.push(Delta(first, 5, (token("a"),)))
        engine.say(second, "a", Finish.EOS)
        engine.wake()
        await well.ended.wait()
        assert broken.error is not None
        assert "could not be formatted" in str(broken.error)
        assert engine.cancelled == [first]
        assert "formatting a reply failed" in caplog.text
        assert session.measures.outcomes == {"error": 1, "ok": 1}


async def test_deltas_that_belong_to_nobody_are_dropped(started: Started) -> None:
    async with started() as (session, engines):
        engine = engines.engine
        sink = Kept()
        session.open(request(session), sink)
        engine.push(Delta(10**9, 0, (token("lost"),), Finish.EOS, Usage(1, 1)))
        engine.say(engine.submitted[-1].id, "a", Finish.EOS)
        engine.wake()
        await sink.ended.wait()
        assert b"lost" not in sink.data


async def test_no_id_is_used_twice_by_any_session(started: Started) -> None:
    async with started() as (one, engines_one), started() as (two, engines_two):
        for session in (one, two, one):
            session.open(request(session), Kept())
        ids = [
            each.id for engines in (engines_one, engines_two) for each in engines.engine.submitted
        ]
        assert len(set(ids)) == len(ids) == 5


async def test_under_a_bursty_engine_everybody_gets_exactly_the_own_answer() -> None:
    rng = random.Random(3)
    made: list[BurstEngine] = []

    def load(progress: object) -> Loaded:
        made.append(BurstEngine(EchoConfig(max_batch=8), seed=3))
        return Loaded(made[-1])

    session = Session(QUICK, load)
    session.start()
    await session.ready()
    opened: list[tuple[str, Kept, Live]] = []
    cancelled = set()
    for number in range(120):
        text = f"request {number} says {rng.randrange(10**9)}"
        sink = Kept()
        parsed = request(
            session, text, stream=rng.random() < 0.5, max_new_tokens=rng.randrange(1, 60)
        )
        opened.append((text, sink, session.open(parsed, sink)))
        if rng.random() < 0.2:
            await until(lambda: session.held < 20)
        if rng.random() < 0.2:
            victim = rng.choice(opened)
            if victim[2].open:
                cancelled.add(victim[0])
            victim[2].cancel()
    await until(lambda: session.held == 0)
    for text, sink, _ in opened:
        assert sink.ends == (0 if text in cancelled else 1)
        if text not in cancelled:
            answer = json.loads(sink.data.splitlines()[-1])["generated_text"]
            assert answer
            assert (text * 20).startswith(answer)
    assert cancelled
    await until(lambda: made[0].stats().running == 0)
    assert made[0].stats().kv_blocks_used == 0
    again = request(session, "after")
    assert b"after" in await collect(lambda sink: session.open(again, sink))
    await session.close()
