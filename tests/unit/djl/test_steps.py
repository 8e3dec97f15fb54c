"""Rolling batch: the list that Java and we keep, and what each step says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lmi.core import BadPayload, EngineDead, Head, Overloaded, Unavailable
from lmi.djl import Width
from lmi.session import Health, State
from tests.support.djl_client import Disconnected
from tests.support.scripted_served import Opened, ScriptedServed
from tests.unit.djl.conftest import ROLLING, Drive, Echoing, until

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("width", [Width.SHORT, Width.LONG])


def body(text: str, stream: bool = True, **parameters: Any) -> bytes:
    return json.dumps({"inputs": text, "stream": stream, "parameters": parameters}).encode()


@BOTH
@pytest.mark.parametrize("stream", [True, False])
async def test_requests_that_come_and_go_get_their_own_answers(
    drive: Drive, echoing: Echoing, width: Width, stream: bool
) -> None:
    async with echoing() as session, drive(session, ROLLING, width=width) as pair:
        rolling = pair.java.rolling
        asked = {}
        for number in range(20):
            one = rolling.add(body(f"{number:03}", stream, max_new_tokens=1 + number % 7))
            asked[number] = one
            await rolling.step()
        await rolling.finish()
        for number, one in asked.items():
            said = f"{number:03}" * (1 + number % 7)
            lines = [json.loads(line) for line in one.text.splitlines()]
            assert lines[-1]["generated_text"] == said
            kind = "application/jsonlines" if stream else "application/json"
            expected = {"Content-Type": kind} if width is Width.LONG else {}
            assert one.headers == expected
        assert session.held == 0


@BOTH
async def test_a_step_answers_as_soon_as_anybody_has_something(drive: Drive, width: Width) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING | {"max_rolling_batch_size": "2"}, width=width) as pair:
        rolling = pair.java.rolling
        first, second = rolling.add(b"1"), rolling.add(b"2")
        rolling.send()
        await until(lambda: len(served.opened) == 2)
        served.opened[1].say(b"text")
        await rolling.receive()
        assert (first.chunks, second.chunks) == ([], ["text"])


async def test_a_step_without_news_is_answered_before_java_gives_up(drive: Drive) -> None:
    options = ROLLING | {"max_rolling_batch_size": "1", "predict_timeout": "0.2"}
    async with drive(ScriptedServed(), options) as pair:
        one = pair.java.rolling.add(b"1")
        async with asyncio.timeout(5):
            for _ in range(3):
                await pair.java.rolling.step()
        assert one.chunks == []
        assert not one.last


async def test_a_request_that_waits_in_java_is_let_in_while_nobody_has_news(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING | {"max_rolling_batch_size": "8"}) as pair:
        rolling = pair.java.rolling
        rolling.add(b"1")
        await rolling.step()
        rolling.add(b"2")
        await rolling.step()
        assert [opened.call.body for opened in served.opened] == [b"1", b"2"]


async def test_text_goes_before_the_map_that_ends_a_stream(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING) as pair:
        rolling = pair.java.rolling
        one = rolling.add(b"1")
        await rolling.step()
        served.opened[0].say(b"a")
        await rolling.step()
        served.opened[0].say(b"b", last=True)
        await rolling.step()
        assert (one.chunks, one.last) == (["a", "b"], False)
        await rolling.step()
        assert (one.chunks, one.last) == (["a", "b", ""], True)


async def test_a_whole_answer_is_one_map(drive: Drive) -> None:
    served = ScriptedServed(lambda opened: opened.say(b"all", last=True))
    async with drive(served, ROLLING) as pair:
        one = pair.java.rolling.add(b"1")
        await pair.java.rolling.step()
        assert (one.chunks, one.last) == (["all"], True)


@BOTH
async def test_a_refused_request_harms_only_itself(drive: Drive, width: Width) -> None:
    def accept(opened: Opened) -> None:
        if opened.call.body == b"bad":
            raise BadPayload("a message\nof two lines")
        if opened.call.body == b"busy":
            raise Overloaded("full", retry_after=2.5)

    served = ScriptedServed(accept)
    async with drive(served, ROLLING, width=width) as pair:
        rolling = pair.java.rolling
        good, bad, busy = (rolling.add(text) for text in (b"good", b"bad", b"busy"))
        await rolling.step()
        assert (bad.status, bad.error) == (424, "a message of two lines")
        assert (busy.status, busy.error) == (429, "full")
        assert busy.headers == ({"Retry-After": "3"} if width is Width.LONG else {})
        served.opened[0].say(b"fine", last=True)
        await rolling.finish()
        assert good.chunks == ["fine"]


async def test_an_error_before_the_first_byte_is_a_code(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING) as pair:
        one = pair.java.rolling.add(b"1")
        await pair.java.rolling.step()
        served.opened[0].fail(EngineDead("killed"))
        await pair.java.rolling.finish(one)
        assert (one.status, one.error, one.chunks) == (500, "killed", [])


async def test_an_answer_with_a_failures_status_becomes_a_code(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        opened.sink.describe(Head(418, "tea"))
        opened.say(b'{"error": ')
        opened.say(b'"no coffee"}', last=True)

    async with drive(ScriptedServed(accept), ROLLING) as pair:
        one = pair.java.rolling.add(b"1")
        await pair.java.rolling.finish(one)
        assert (one.status, one.error) == (418, "no coffee")


@BOTH
async def test_a_reset_cancels_all_that_was_held(drive: Drive, width: Width) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING, width=width) as pair:
        rolling = pair.java.rolling
        rolling.add(b"1")
        rolling.add(b"2")
        await rolling.step()
        rolling.live.clear()
        rolling._reset = True
        again = rolling.add(b"3")
        await rolling.step()
        assert [opened.cancelled for opened in served.opened] == [True, True, False]
        served.opened[2].say(b"new", last=True)
        await rolling.finish(again)
        assert again.text == "new"


async def test_a_list_that_differs_from_ours_fails_as_a_whole_and_starts_anew(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING) as pair:
        rolling = pair.java.rolling
        rolling.add(b"1")
        rolling.add(b"2")
        await rolling.step()
        lost = rolling.live.pop()
        kept = rolling.live[0]
        await rolling.step()
        assert (kept.status, kept.error, lost.last) == (500, "Batch inference failed", False)
        assert all(opened.cancelled for opened in served.opened)
        after = rolling.add(b"3")
        await rolling.step()
        served.opened[2].say(b"ok", last=True)
        await rolling.finish(after)
        assert after.text == "ok"


async def test_an_empty_batch_is_answered_with_nothing_and_is_no_initialise(drive: Drive) -> None:
    async with drive(ScriptedServed(), ROLLING) as pair:
        pair.java.send({"batch_size": "0", "handler": "handle"})
        reply = await pair.java.reply()
        assert (reply.code, reply.content) == (200, ())


async def test_a_request_with_its_own_handler_bypasses_the_batch(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING) as pair:
        waiting = pair.java.rolling.add(b"1")
        await pair.java.rolling.step()
        asked = asyncio.create_task(pair.java.predict(b"x", {"handler": "other"}))
        await until(lambda: len(served.opened) == 2)
        assert served.opened[1].call.function == "other"
        served.opened[1].say(b"plain", last=True)
        assert (await asked).body == b"plain"
        served.opened[0].say(b"done", last=True)
        await pair.java.rolling.finish(waiting)
        assert waiting.text == "done"


@BOTH
async def test_text_over_javas_limits_goes_in_pieces_of_whole_characters(
    drive: Drive, width: Width
) -> None:
    said = "ab€𝄞" * 20_000
    served = ScriptedServed(lambda opened: opened.say(said.encode(), last=True))
    async with drive(served, ROLLING, width=width, limit=50_001) as pair:
        one = pair.java.rolling.add(b"1")
        await pair.java.rolling.finish(one)
        assert one.text == said
        assert len(one.chunks) > 3


async def test_a_character_that_comes_in_two_parts_is_sent_whole(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING) as pair:
        one = pair.java.rolling.add(b"1")
        await pair.java.rolling.step()
        data = "né𝄞".encode()
        for place in range(len(data)):
            served.opened[0].say(data[place : place + 1], last=place == len(data) - 1)
            await pair.java.rolling.step()
        await pair.java.rolling.finish(one)
        assert one.text == "né𝄞"


@pytest.mark.parametrize("data", [b"\xff\xd8\xff", b"abc\xc3", "é".encode("utf-16")])
async def test_bytes_that_are_no_text_are_an_error_and_no_broken_frame(
    drive: Drive, data: bytes
) -> None:
    served = ScriptedServed(lambda opened: opened.say(data, last=True))
    async with drive(served, ROLLING) as pair:
        one = pair.java.rolling.add(b"1")
        await pair.java.rolling.finish(one)
        assert one.status == 424
        assert "UTF-8" in str(one.error)


@BOTH
async def test_a_batch_of_999_is_one_step(drive: Drive, echoing: Echoing, width: Width) -> None:
    async with echoing() as session, drive(session, ROLLING, width=width) as pair:
        rolling = pair.java.rolling
        asked = [rolling.add(body(f"{n:03}", max_new_tokens=3)) for n in range(999)]
        await rolling.finish()
        for number, one in enumerate(asked):
            assert json.loads(one.text.splitlines()[-1])["generated_text"] == f"{number:03}" * 3


@BOTH
async def test_a_model_that_is_gone_for_good_tells_everybody_and_then_dies_in_a_step(
    drive: Drive, width: Width
) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING, width=width) as pair:
        rolling = pair.java.rolling
        streaming, waiting = rolling.add(b"1"), rolling.add(b"2")
        await rolling.step()
        served.opened[0].say(b"some")
        await rolling.step()
        served.opened[0].say(b"an event", last=True)
        served.opened[1].fail(EngineDead("killed"))
        served.now = Health(State.FAILED, "given up")
        late = rolling.add(b"3")
        served.on_accept = _refuse
        await rolling.step()
        assert streaming.text == "somean event"
        assert (waiting.status, waiting.error, waiting.complete) == (500, "killed", True)
        assert (late.status, late.complete) == (503, True)
        with pytest.raises(Disconnected):
            await rolling.finish()
        assert await pair.running == 1


def _refuse(opened: Opened) -> None:
    raise Unavailable("gone")


async def test_java_that_leaves_cancels_everything(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ROLLING) as pair:
        pair.java.rolling.add(b"1")
        await pair.java.rolling.step()
        pair.java.rolling.send()
    assert [opened.cancelled for opened in served.opened] == [True]
    assert served.closed == 1
    assert pair.running.result() == 0
