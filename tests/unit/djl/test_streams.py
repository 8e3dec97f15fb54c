"""Async mode: requests by tracking id, side by side."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from lmi.core import BadPayload, EngineDead, Head, Overloaded
from lmi.djl import Message, Width
from lmi.djl.channel import Channel
from lmi.djl.encode import Encoder
from lmi.djl.streams import StreamLoop
from lmi.djl.wire import TRACKING_ID
from lmi.engines.echo import EchoConfig
from lmi.session import Health, SessionConfig, State
from tests.support.djl_bytes import ReplyReader
from tests.support.djl_client import Disconnected
from tests.support.scripted_served import Opened, ScriptedServed
from tests.unit.djl.conftest import ASYNC, Drive, Echoing, until
from tests.unit.djl.test_steps import body

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_thousands_of_requests_at_once_get_their_own_answers(
    drive: Drive, echoing: Echoing, count: int
) -> None:
    many = SessionConfig("m", max_queue=count)
    async with echoing(EchoConfig(), many) as session, drive(session, ASYNC) as pair:
        asked = [
            pair.java.open(body(f"{n:05}", stream=n % 2 == 0, max_new_tokens=2 + n % 3))
            for n in range(count)
        ]
        await pair.java.until(lambda: not pair.java.asked)
        for number, one in enumerate(asked):
            last = json.loads(one.text.splitlines()[-1])
            assert last["generated_text"].startswith(f"{number:05}")
            assert one.headers["Content-Type"].startswith("application/json")
        assert session.held == 0


class Written(Channel):
    """A channel that keeps what is written."""

    def __init__(self) -> None:
        super().__init__(lambda message: None, lambda garbage: None)
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


async def test_what_one_turn_releases_for_all_goes_out_in_one_write() -> None:
    served, channel = ScriptedServed(), Written()
    streams = StreamLoop(served, Encoder(Width.LONG), channel)
    for number in range(50):
        streams.open(Message({TRACKING_ID: f"{number}"}, (("data", b"x"),)))
    for opened in served.opened:
        opened.say(b"token")
    await until(lambda: channel.writes)
    assert len(channel.writes) == 1
    assert len(list(ReplyReader(Width.LONG).feed(channel.writes[0]))) == 50


async def test_text_gathers_while_java_does_not_read(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ASYNC) as pair:
        slow, other = pair.java.open(b"1"), pair.java.open(b"2")
        await until(lambda: len(served.opened) == 2)
        pair.java.pause()
        filler = b"x" * 100_000
        for _ in range(40):
            served.opened[1].say(filler)
            await asyncio.sleep(0)
        for _ in range(1000):
            served.opened[0].say(b"ab")
            await asyncio.sleep(0)
        pair.java.resume()
        served.opened[0].say(b"end", last=True)
        served.opened[1].say(b"", last=True)
        await pair.java.until(lambda: slow.complete and other.complete)
        assert slow.text == "ab" * 1000 + "end"
        assert other.text == "x" * 4_000_000
        assert len(slow.chunks) < 100


async def test_the_first_reply_of_a_request_has_its_headers_and_the_others_none(
    drive: Drive,
) -> None:
    def accept(opened: Opened) -> None:
        opened.sink.describe(Head(headers=(("content-type", "a/b"), ("x-more", "c\r\nd"))))

    served = ScriptedServed(accept)
    async with drive(served, ASYNC) as pair:
        one = pair.java.open(b"1")
        await until(lambda: served.opened)
        served.opened[0].say(b"a")
        await pair.java.until(lambda: one.chunks)
        served.opened[0].say(b"b", last=True)
        await pair.java.until(lambda: one.complete)
        own = {key: value for key, value in one.headers.items() if key != "request_tracking_id"}
        assert own == {"Content-Type": "a/b", "x-more": "c  d"}


async def test_refusals_and_errors_are_codes_in_the_map(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        if opened.call.body == b"bad":
            raise BadPayload("no")
        if opened.call.body == b"busy":
            raise Overloaded("full", retry_after=1)
        opened.fail(EngineDead("killed"))

    async with drive(ScriptedServed(accept), ASYNC) as pair:
        for text, code, error in (
            (b"bad", 424, "no"),
            (b"busy", 429, "full"),
            (b"", 500, "killed"),
        ):
            one = await pair.java.ask(text)
            assert (one.status, one.error, one.last) == (code, error, True)


async def test_a_stream_that_fails_after_text_ends_with_its_event(
    drive: Drive, echoing: Echoing
) -> None:
    served = ScriptedServed()
    async with drive(served, ASYNC) as pair:
        one = pair.java.open(b"1")
        await until(lambda: served.opened)
        served.opened[0].say(b"a")
        served.opened[0].say(b'{"error": "x"}\n', last=True)
        await pair.java.until(lambda: one.complete)
        assert one.text == 'a{"error": "x"}\n'
        assert one.status == 200


async def test_an_answer_over_the_field_limit_goes_in_pieces(drive: Drive) -> None:
    said = "€" * 50_000
    served = ScriptedServed(lambda opened: opened.say(said.encode(), last=True))
    async with drive(served, ASYNC, limit=20_000) as pair:
        one = await pair.java.ask(b"1")
        assert one.text == said


async def test_java_that_leaves_cancels_everything(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served, ASYNC) as pair:
        for _ in range(5):
            pair.java.open(b"x")
        await until(lambda: len(served.opened) == 5)
    assert all(opened.cancelled for opened in served.opened)
    assert pair.running.result() == 0


async def test_a_model_that_is_gone_for_good_closes_the_socket_after_the_last_answer(
    drive: Drive,
) -> None:
    served = ScriptedServed()
    async with drive(served, ASYNC) as pair:
        one = pair.java.open(b"x")
        await until(lambda: served.opened)
        served.opened[0].fail(EngineDead("killed"))
        served.now = Health(State.FAILED, "given up")
        await pair.java.until(lambda: one.complete)
        assert (one.status, one.error) == (500, "killed")
        with pytest.raises(Disconnected):
            await pair.java.reply()
        assert await pair.running == 1


async def test_cut_and_mixed_requests_are_all_answered(drive: Drive, echoing: Echoing) -> None:
    draw = random.Random(5)
    async with echoing() as session, drive(session, ASYNC) as pair:
        sent = bytearray()
        send, pair.java.send_bytes = pair.java.send_bytes, sent.extend  # type: ignore[method-assign, assignment]
        asked = [pair.java.open(body(f"{n:03}", draw.random() < 0.5)) for n in range(200)]
        while sent:
            size = draw.choice((1, 7, 100, 5000))
            send(bytes(sent[:size]))
            del sent[:size]
            await asyncio.sleep(0)
        await pair.java.until(lambda: not pair.java.asked)
        assert all(one.complete and one.status == 200 for one in asked)
