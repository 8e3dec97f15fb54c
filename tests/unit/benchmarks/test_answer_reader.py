"""The load generator's reader counts the same whatever the pieces the bytes come in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.answer_reader import AnswerReader, NotHttp

LINES = [b'{"token": {"text": "a"}}\n', b"\n", b'{"generated_text": "\r\n0\r\n\r\n"}\n']


def chunked(pieces: Sequence[bytes]) -> bytes:
    body = b"".join([b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces])
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 424 Failed Dependency\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % len(body) + body


def read(pieces: Sequence[bytes]) -> AnswerReader:
    reader = AnswerReader(keep=True)
    for piece in pieces:
        assert not reader.done
        reader.feed(piece)
    return reader


@settings(deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_a_chunked_answer_reads_the_same_however_it_is_split(
    lines: list[bytes], cuts: list[int]
) -> None:
    data = chunked(lines)
    places = sorted({0, len(data), *[cut for cut in cuts if cut < len(data)]})
    split = [data[start:end] for start, end in itertools.pairwise(places)]
    reader = read(split)
    body = b"".join(lines)
    assert reader.done
    assert (reader.status, reader.body, reader.size) == (200, body, len(body))
    assert (reader.lines, reader.beyond) == (body.count(b"\n"), 0)


def test_byte_by_byte_is_a_split_like_any_other() -> None:
    for data in (chunked(LINES), whole(b"one\ntwo")):
        reader = read([data[place : place + 1] for place in range(len(data))])
        assert reader.done
        assert not reader.beyond


def test_a_whole_answer_ends_by_its_length() -> None:
    reader = read([whole(b"one\ntwo")])
    assert (reader.status, reader.body, reader.lines) == (424, b"one\ntwo", 1)
    assert (reader.done, reader.closes) == (True, True)
    assert read([whole(b"")]).done


@pytest.mark.parametrize("answer", [chunked(LINES), whole(b"one")], ids=["chunked", "whole"])
def test_bytes_after_the_end_are_counted(answer: bytes) -> None:
    assert read([answer + b"HTTP/1.1"]).beyond == 8


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-something\r\n\r\n",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"x" * 70_000,
    ],
    ids=["another protocol", "no status", "neither length nor chunks", "no end of the head"],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(NotHttp):
        AnswerReader().feed(data)


def test_the_end_of_an_answer_is_kept_however_it_is_split() -> None:
    body = b"".join([b"data: %d\n\n" % number for number in range(500)])
    data = chunked([body[:7], body[7:]])
    for size in (1, 3, 1000, len(data)):
        reader = AnswerReader(tail=100)
        for place in range(0, len(data), size):
            reader.feed(data[place : place + size])
        assert reader.end.endswith(body[-100:])
        assert len(reader.end) <= 100 + size
