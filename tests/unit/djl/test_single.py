"""One request after the other: plain replies, streams, dynamic batches."""

from __future__ import annotations

import asyncio
import json

import pytest

from lmi.core import BadPayload, EngineDead, Head, OutOfMemory, Overloaded
from lmi.djl import Width
from lmi.djl.loops import rolls
from lmi.session import Health, State
from tests.support.djl_client import Disconnected
from tests.support.scripted_served import Opened, ScriptedServed
from tests.unit.djl.conftest import Drive, Echoing, until
from tests.unit.djl.test_steps import BOTH, body

pytestmark = pytest.mark.anyio


@BOTH
async def test_an_answer_is_a_plain_reply_and_a_stream_has_frames(
    drive: Drive, echoing: Echoing, width: Width
) -> None:
    async with echoing() as session, drive(session, width=width) as pair:
        whole = await pair.java.predict(body("abc", stream=False, max_new_tokens=3))
        assert (whole.status, whole.reason, whole.streamed) == (200, "OK", False)
        assert whole.headers["Content-Type"] == "application/json"
        assert json.loads(whole.body) == {"generated_text": "abc" * 3}
        stream = await pair.java.predict(body("abc", max_new_tokens=3))
        assert stream.streamed
        assert len(stream.chunks) == 3
        assert json.loads(stream.body.splitlines()[-1])["generated_text"] == "abc" * 3


async def test_many_streams_in_a_row_end_where_java_can_see_it(
    drive: Drive, echoing: Echoing
) -> None:
    async with echoing() as session, drive(session) as pair:
        for number in range(50):
            answer = await pair.java.predict(body("ab", max_new_tokens=1 + number % 40))
            assert len(answer.body.splitlines()) == 1 + number % 40


async def test_the_next_request_may_be_written_while_a_stream_flows(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served) as pair:
        pair.java.send({"handler": "handle"}, [("data", b"1")])
        pair.java.send({"handler": "handle"}, [("data", b"2")])
        await until(lambda: served.opened)
        served.opened[0].say(b"a")
        first = asyncio.create_task(pair.java.answer())
        served.opened[0].say(b"b", last=True)
        assert (await first).body == b"ab"
        await until(lambda: len(served.opened) == 2)
        served.opened[1].say(b"c", last=True)
        assert (await pair.java.answer()).body == b"c"


async def test_errors_have_their_status_and_one_line_of_message(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        if opened.call.body == b"busy":
            raise Overloaded("full", retry_after=1.2)
        if opened.call.body == b"bad":
            raise BadPayload("no\ngood")
        opened.fail(OutOfMemory("none left"))

    async with drive(ScriptedServed(accept)) as pair:
        busy = await pair.java.predict(b"busy")
        assert (busy.status, busy.reason) == (429, "Too Many Requests")
        assert busy.headers["Retry-After"] == "2"
        bad = await pair.java.predict(b"bad")
        assert (bad.status, json.loads(bad.body)) == (424, {"code": 424, "error": "no\ngood"})
        assert (await pair.java.predict(b"x")).status == 507


async def test_a_head_is_what_the_client_gets(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        opened.sink.describe(Head(201, "Made\r\nup", (("x-a", "1"), ("content-type", "t/x"))))
        opened.say(b"\xff\x00", last=True)

    async with drive(ScriptedServed(accept)) as pair:
        answer = await pair.java.predict(b"x")
        assert (answer.status, answer.reason) == (201, "Made  up")
        assert answer.headers == {"x-a": "1", "Content-Type": "t/x"}
        assert answer.body == b"\xff\x00"


async def test_nothing_as_an_answer_is_204_without_content(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        opened.sink.describe(Head(204))
        opened.say(b"", last=True)

    async with drive(ScriptedServed(accept)) as pair:
        answer = await pair.java.predict(None)
        assert (answer.status, answer.reason, answer.chunks) == (204, "No content", [])


async def test_all_items_and_properties_reach_the_model(drive: Drive) -> None:
    served = ScriptedServed(lambda opened: opened.say(b"", last=True))
    async with drive(served) as pair:
        items = [("q", b"1"), (None, b"2"), ("data", b"3")]
        await pair.java.predict(None, {"Content-Type": "a/b", "handler": "own"}, items)
        call = served.opened[0].call
        assert call.content == (("q", b"1"), (None, b"2"), ("data", b"3"))
        assert call.properties == {"content-type": "a/b", "handler": "own"}
        assert (call.function, call.body) == ("own", b"3")


@pytest.mark.parametrize("size", [49_999, 50_000, 50_001, 200_001])
async def test_an_answer_over_the_field_limit_comes_as_a_stream(drive: Drive, size: int) -> None:
    served = ScriptedServed(lambda opened: opened.say(b"x" * size, last=True))
    async with drive(served, limit=50_000) as pair:
        answer = await pair.java.predict(b"x")
        assert answer.body == b"x" * size
        assert answer.streamed == (size > 50_000)


@BOTH
async def test_a_dynamic_batch_is_answered_in_order(
    drive: Drive, echoing: Echoing, width: Width
) -> None:
    async with echoing() as session, drive(session, {"batch_size": "4"}, width=width) as pair:
        bodies = [body(f"{n:03}", stream=False, max_new_tokens=3 - n % 3) for n in range(12)]
        answers = await pair.java.predict_batch(bodies, {"Content-Type": "application/json"})
        for number, answer in enumerate(answers):
            said = f"{number:03}" * (3 - number % 3)
            assert json.loads(answer.body) == {"generated_text": said}
            assert answer.headers["Content-Type"] == "application/json"


async def test_one_that_fails_in_a_batch_leaves_the_others_their_answers(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        if opened.call.body == b"bad":
            raise BadPayload("no")
        opened.say(b"good", last=True)

    async with drive(ScriptedServed(accept)) as pair:
        answers = await pair.java.predict_batch([b"bad", b"x", b"bad"])
        assert [answer.status for answer in answers] == [200] * 3
        assert [answer.body for answer in answers] == [
            b'{"code":424,"error":"no"}',
            b"good",
            b'{"code":424,"error":"no"}',
        ]
        every = await pair.java.predict_batch([b"bad", b"bad"])
        assert [(answer.status, answer.reason) for answer in every] == [
            (424, "Failed Dependency")
        ] * 2


async def test_a_part_over_the_field_limit_is_an_error_for_it_alone(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        opened.say(opened.call.body * 100, last=True)

    async with drive(ScriptedServed(accept), limit=1000) as pair:
        small, large = await pair.java.predict_batch([b"x", b"x" * 11])
        assert small.body == b"x" * 100
        assert "MAX_NETTY_BUFFER_SIZE" in json.loads(large.body)["error"]


async def test_a_model_that_is_gone_for_good_dies_with_the_next_request(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served) as pair:
        pair.java.send({"handler": "handle"}, [("data", b"1")])
        await until(lambda: served.opened)
        served.opened[0].fail(EngineDead("killed"))
        served.now = Health(State.FAILED, "given up")
        assert (await pair.java.answer()).status == 500
        with pytest.raises(Disconnected):
            await pair.java.predict(b"2")
        assert await pair.running == 1
        assert len(served.opened) == 1


async def test_java_that_leaves_cancels_the_request(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served) as pair:
        pair.java.send({"handler": "handle"}, [("data", b"1")])
        await until(lambda: served.opened)
    assert served.opened[0].cancelled
    assert pair.running.result() == 0


async def test_java_that_leaves_cancels_a_batch(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served) as pair:
        pair.java.send(
            {"batch_size": "2", "handler": "handle"},
            [("batch_000.data", b"1"), ("batch_001.data", b"2")],
        )
        await until(lambda: len(served.opened) == 2)
        served.opened[0].say(b"done", last=True)
    assert served.opened[1].cancelled


def test_java_batches_by_steps_unless_a_newer_one_was_told_not_to() -> None:
    assert not rolls({}, Width.LONG)
    assert rolls({"rolling_batch": "auto"}, Width.LONG)
    assert not rolls({"rolling_batch": "disable"}, Width.LONG)
    assert rolls({"rolling_batch": "disable"}, Width.SHORT)
