"""The codec alone: any cut, any garbage, every bound, and the bytes of the protocol's examples."""

from __future__ import annotations

import random
import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.djl.decode import Decoder
from lmi.djl.encode import STREAM_END, Encoder, clipped, one_line, whole_characters
from lmi.djl.wire import FIELD_LIMIT, Limits, Message, ProtocolError, Width
from tests.support.djl_bytes import Reply, ReplyReader, binary_map, request
from tests.support.djl_garbage import garbage, parses

BOTH = pytest.mark.parametrize("width", [Width.SHORT, Width.LONG])
GARBAGE_FRAMES = 20_000

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
messages = st.builds(
    Message,
    st.dictionaries(names, words, min_size=1, max_size=5),
    st.lists(st.tuples(st.none() | words, st.binary(max_size=40)), max_size=5).map(tuple),
)
widths = st.sampled_from(Width)


def sent(message: Message, width: Width) -> bytes:
    return request(message.properties, message.content, width)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(st.lists(messages, min_size=1, max_size=4), widths, st.lists(st.integers(0, 9999)))
@settings(max_examples=150, deadline=None)
def test_messages_are_read_wherever_they_are_cut(
    said: list[Message], width: Width, cuts: list[int]
) -> None:
    data = b"".join([sent(message, width) for message in said])
    decoder = Decoder()
    found = [message for piece in pieces(data, cuts) for message in decoder.feed(piece)]
    assert found == said
    assert decoder.width is width
    assert decoder.pending == 0


@BOTH
def test_every_byte_by_itself_is_enough(width: Width) -> None:
    said = Message({"handler": "handle", "é": "ü"}, ((None, b"1"), ("data", b"\x00" * 300)))
    decoder = Decoder()
    data = sent(said, width) * 3
    found = [one for place in range(len(data)) for one in decoder.feed(data[place : place + 1])]
    assert found == [said] * 3


@BOTH
@pytest.mark.parametrize("size", [1, 2, 256, 999, 1000, 1001, 1500])
def test_a_batch_of_known_requests_is_read_like_any_other(width: Width, size: int) -> None:
    content = tuple([(f"batch_{place:03}.data", b"") for place in range(size)])
    said = Message({"batch_size": str(size)}, content)
    for change in (content, (*content[:-1], (content[-1][0], b"x")), (("other", b""), *content)):
        message = Message(said.properties, change)
        data = sent(message, width)
        assert list(Decoder().feed(data + data)) == [message] * 2
        decoder = Decoder()
        assert [one for byte in data for one in decoder.feed(bytes([byte]))] == [message]


def test_a_null_value_is_as_if_it_had_not_been_sent() -> None:
    data = request({"alias": None, "name": "a"}, (), Width.LONG)
    assert list(Decoder().feed(data)) == [Message({"name": "a"})]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00",  # a first message without properties
        b"\xff\xff\x00\x00",  # fewer than none
        b"\x00\x01\x00\x00\x00\x01k\xff\xff\xff\xfe\xff\xfe",  # items, fewer than none
        b"\x00\x01\xff\xff\xff\xff\x00\x00\x00\x00",  # a name that is null, of 16 bits
        b"\x00\x01\x00\x00\x00\x01k\x7f\xff\xff\xff",  # a value of 2 GiB
        b"\x00\x01\x00\x00\x00\x02\xc3\x28",  # no UTF-8
        b"\x00\x01\x00\x00\x00\x01k\x00\x00\x00\x01v\x00\x01\x00\x00\x00\x01d\x80\x00\x00\x00",
        b"\x00\x01\x00\x00\x00\x01k\x00\x00\x00\x01v\x00\x01\x7f\xff\xff\xff",
    ],
)
def test_garbage_is_refused_at_once_and_for_good(data: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        list(decoder.feed(data))
    with pytest.raises(ProtocolError, match="after garbage"):
        list(decoder.feed(b"\x00" * 8))


def test_what_came_before_garbage_is_still_a_message() -> None:
    good = Message({"handler": "handle"}, (("data", b"x"),))
    feed = Decoder().feed(sent(good, Width.LONG) + b"\xff" * 9)
    assert next(feed) == good
    with pytest.raises(ProtocolError):
        next(feed)


def test_any_garbage_parses_or_is_refused() -> None:
    draw = random.Random(20)
    refused = sum(not parses(garbage(draw)) for _ in range(GARBAGE_FRAMES))
    assert 0 < refused < GARBAGE_FRAMES


def test_garbage_that_promises_much_costs_no_memory() -> None:
    draw = random.Random(21)
    tracemalloc.start()
    for _ in range(200):
        parses(garbage(draw))
        parses(b"\x00\x01\x00\x00\x00\x01k\x00\x00\x00\x01v\x7f\xff" + b"\x00\x0f\xff\xff" * 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_message_is_bounded_as_a_whole() -> None:
    limits = Limits(string=100, blob=1000, message=3000)
    items = [("data", b"x" * 900)] * 4
    with pytest.raises(ProtocolError, match="over 3000 bytes"):
        list(Decoder(limits).feed(request({"handler": "handle"}, items, Width.LONG)[:3200]))


@BOTH
def test_the_bytes_of_the_protocols_examples(width: Width) -> None:
    encoder = Encoder(width)
    pad = b"\x00\x00" if width is Width.LONG else b""
    nothing = b"\x00\xcc" + pad + b"\x00\x0aNo content" + b"\x00\x00\x00\x00"
    assert encoder.reply(204, "No content") == nothing
    head = b"\x00\xc8" + pad + b"\x00\x02OK\x00\x01" + pad + b"\x00\x01k" + pad + b"\x00\x01v"
    assert encoder.stream_head(200, "OK", [("k", "v")]) == head + b"\xff\xff"
    assert encoder.stream_frames(b"a") == b"\x01\x00\x00\x00\x01a"
    assert encoder.stream_frames(b"") == b""
    assert STREAM_END == b"\x00\x00\x00\x00\x00"
    piece = b"\x00\x02" + pad + b"\x00\x04data" + pad + b"\x00\x02hi" + pad + b"\x00\x04last"
    assert encoder.data_map(b"hi", last=False) == piece + pad + b"\x00\x05false"
    assert encoder.data_map(b"hi", last=True) == piece + pad + b"\x00\x04true"


@BOTH
@given(text=st.text(st.characters(), max_size=30), code=st.integers(200, 599))
@settings(max_examples=60, deadline=None)
def test_whatever_the_text_java_can_read_it(width: Width, text: str, code: int) -> None:
    encoder = Encoder(width)
    data = encoder.reply(code, text, [("h", text)], [("data", b"x")])
    data += encoder.batch_reply([("batch_0_h", text)], [encoder.item(b"t", last=True)])
    data += encoder.async_reply("id", encoder.error_map(code, text), [("h", text)])
    replies = list(ReplyReader(width).feed(data))
    assert [type(reply) for reply in replies] == [Reply] * 3
    found = binary_map(encoder.error_map(code, text), width)
    assert found == {
        "data": "",
        "last": "true",
        "code": str(code),
        "error": one_line(text).encode("utf-8", "replace").decode(),
    }


def test_a_field_over_the_limit_is_never_made() -> None:
    encoder = Encoder(Width.LONG)
    with pytest.raises(ValueError, match="an item of"):
        encoder.reply(200, "OK", (), [("data", b"x" * (FIELD_LIMIT + 1))])
    frames = encoder.stream_frames(b"x" * (FIELD_LIMIT + 1))
    assert struct.unpack_from(">i", frames, 1) == (FIELD_LIMIT,)
    assert len(encoder.data_map(b"x" * encoder.max_data, last=False)) <= FIELD_LIMIT
    assert Encoder(Width.SHORT).max_data == 2**15 - 1


def test_strings_of_16_bits_are_cut_between_characters() -> None:
    data = Encoder(Width.SHORT).string("€" * 20_000)
    assert struct.unpack_from(">h", data) == (len(data) - 2,)
    assert data[2:].decode() == "€" * ((2**15 - 1) // 3)


def test_reasons_are_bounded() -> None:
    assert len(clipped("€" * 10_000).encode()) <= 4096
    assert clipped("a\r\nb\x00\u2028c") == "a  b  c"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.integers(0, 60))
def test_whole_characters_end_between_characters(text: str, limit: int) -> None:
    data = text.encode()
    size = whole_characters(data, limit)
    data[:size].decode()
    assert min(limit, len(data)) - 3 <= size <= min(limit, len(data))
