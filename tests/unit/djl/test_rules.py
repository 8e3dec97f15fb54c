"""The rules of `lmi.djl.wire` by their numbers. The fake Java holds them in all other tests too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lmi.core import BadPayload, Head
from lmi.djl import Width
from lmi.djl.encode import STREAM_END, Encoder
from tests.support.djl_bytes import Frame, JavaRequest, JavaWouldBreak, Reply, ReplyReader
from tests.support.djl_client import FakeJava
from tests.support.scripted_served import Opened, ScriptedServed
from tests.unit.djl.conftest import ASYNC, ROLLING, Drive, until

pytestmark = pytest.mark.anyio


async def test_rule_1_a_streams_end_waits_until_java_has_read_all_before_it(drive: Drive) -> None:
    served = ScriptedServed()
    async with drive(served) as pair:
        pair.java.send({"handler": "handle"}, [("data", b"x")])
        await until(lambda: served.opened)
        served.opened[0].say(b"a")
        assert isinstance(await pair.java.next(), Reply)
        assert await pair.java.next() == Frame(b"a", False)
        pair.java.pause()
        served.opened[0].say(b"b" * 1000, last=True)
        for _ in range(100):
            await asyncio.sleep(0.001)  # in which it must not come
        before = pair.java.reads
        pair.java.resume()
        assert await pair.java.next() == Frame(b"b" * 1000, False)
        assert pair.java.reads == before + 1
        assert await pair.java.next() == Frame(b"", True)


def test_rule_1_the_fake_refuses_an_end_that_real_javas_decoder_would_lose() -> None:
    head = Encoder(Width.LONG).stream_head(200, "OK")
    for reads in (
        [head, b"\x01\x00\x00\x00\x01a" + STREAM_END],
        [head, STREAM_END[:2], STREAM_END[2:]],
        [head, b"\x00\x00\x00\x00\x01a"],
    ):
        reader = ReplyReader(Width.LONG)
        with pytest.raises(JavaWouldBreak):
            _read_all(reader, reads)


def _read_all(reader: ReplyReader, reads: list[bytes]) -> None:
    for read in reads:
        list(reader.feed(read))


def _fails(opened: Opened) -> None:
    raise BadPayload("no\r\nnever")


@pytest.mark.parametrize("options", [ROLLING, ASYNC])
async def test_rules_2_to_5_every_map_is_whole(drive: Drive, options: dict[str, str]) -> None:
    """Null strings, missing data, codes without an end, lines: the fake refuses each of them."""
    served = ScriptedServed(_fails)
    async with drive(served, options) as pair:
        one = await ask(pair.java, b"x")
        assert (one.status, one.error, one.last) == (424, "no  never", True)


@pytest.mark.parametrize(
    "broken",
    [
        lambda encoder: encoder.map({"last": "true"}),
        lambda encoder: encoder.map({"data": "", "last": "yes"}),
        lambda encoder: encoder.map({"data": "", "last": "false", "code": "424"}),
        lambda encoder: encoder.map({"data": "", "last": "true", "code": "0x1"}),
        lambda encoder: encoder.map({"data": "", "last": "true", "code": "424", "error": "a\nb"}),
        lambda encoder: encoder.data_map(b"x", last=True)[:-1],
        lambda encoder: b"\x00\x01\xff\xff\xff\xff" + encoder.string("x"),
        lambda encoder: encoder.data_map(b"\xe2\x82", last=False),
    ],
)
def test_rules_2_to_5_the_fake_refuses_what_real_java_suffers_from(
    broken: Callable[[Encoder], bytes],
) -> None:
    with pytest.raises(JavaWouldBreak):
        JavaRequest({}, b"").add_response(broken(Encoder(Width.LONG)), (), Width.LONG)


async def test_rule_6_a_batchs_reply_has_the_batchs_size(drive: Drive) -> None:
    async with drive(ScriptedServed(), ROLLING) as pair:
        for size in range(1, 6):
            pair.java.rolling.add(b"x")
            await pair.java.rolling.step()
            assert len(pair.java.rolling.live) == size, "it failed as a whole"


async def test_rule_7_a_batch_of_nothing_is_answered_with_nothing(drive: Drive) -> None:
    async with drive(ScriptedServed(), ROLLING) as pair:
        await pair.java.rolling.step()
        assert pair.java.rolling.steps == 1
        assert pair.host.seen is not None
        assert "batch_size" not in pair.host.seen


@pytest.mark.parametrize("options", [{}, ROLLING, ASYNC])
async def test_rule_8_no_field_is_over_javas_limit(drive: Drive, options: dict[str, str]) -> None:
    said = "€" * 5000
    served = ScriptedServed(lambda opened: opened.say(said.encode(), last=True))
    async with drive(served, options, limit=2000) as pair:
        if options:
            assert (await ask(pair.java, b"x")).text == said
        else:
            assert (await pair.java.predict(b"x")).body == said.encode()


async def test_rule_9_every_async_reply_has_its_id_and_code_200(drive: Drive) -> None:
    def accept(opened: Opened) -> None:
        opened.sink.describe(Head(201 if opened.call.body == b"201" else 500))
        opened.say(b"x", last=True)

    async with drive(ScriptedServed(accept), ASYNC) as pair:
        assert (await pair.java.ask(b"201")).status == 200
        assert (await pair.java.ask(b"500")).status == 500


@pytest.mark.parametrize("options", [{}, ROLLING, ASYNC])
async def test_rule_10_a_headers_value_is_one_line(drive: Drive, options: dict[str, str]) -> None:
    def accept(opened: Opened) -> None:
        opened.sink.describe(Head(headers=(("x-a", "1\r\nx-b: 2"),)))
        opened.say(b"x", last=True)

    async with drive(ScriptedServed(accept), options) as pair:
        found = await ask(pair.java, b"x") if options else await pair.java.predict(b"x")
        assert found.headers["x-a"] == "1  x-b: 2"


async def ask(java: FakeJava, body: bytes) -> JavaRequest:
    """By steps where Java batches so, else in async mode."""
    if not java.rolls:
        return await java.ask(body)
    one = java.rolling.add(body)
    await java.rolling.finish(one)
    return one
