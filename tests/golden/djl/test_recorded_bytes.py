"""Our codec against what DJL's real Java classes said and understood; see `record.py`."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from lmi.djl.decode import Decoder
from lmi.djl.encode import STREAM_END, Encoder
from lmi.djl.wire import BATCH_SIZE, RESET, TRACKING_ID, Message, Width

FOLDER = Path(__file__).parent
RECORDS = sorted(path.stem for path in FOLDER.glob("*.json"))
VERSION_WIDTHS = {"0.25.0": Width.SHORT, "0.34.0": Width.LONG}


def read(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return record


def said(name: str, sender: str) -> list[bytes]:
    messages = read(name)["messages"]
    return [bytes.fromhex(message["hex"]) for message in messages if message["from"] == sender]


def width(name: str) -> Width:
    return VERSION_WIDTHS[name.partition("-")[0]]


def encoded(message: Message, size: Width) -> bytes:
    """A message as Java writes it; written out here, since we never send any."""

    def text(value: str | None) -> bytes:
        data = (value or "").encode()
        count = -1 if value is None else len(data)
        return count.to_bytes(size, "big", signed=True) + data

    pairs = b"".join(text(key) + text(value) for key, value in message.properties.items())
    items = b"".join(
        text(key) + struct.pack(">i", len(value)) + value for key, value in message.content
    )
    return (
        struct.pack(">h", len(message.properties))
        + pairs
        + struct.pack(">h", len(message.content))
        + items
    )


@pytest.mark.parametrize("name", RECORDS)
def test_every_message_of_java_is_read_to_its_last_byte(name: str) -> None:
    decoder = Decoder()
    for raw in said(name, "java"):
        (message,) = decoder.feed(raw)
        assert decoder.pending == 0
        assert encoded(message, width(name)) == raw
    assert decoder.width is width(name)


@pytest.mark.parametrize("name", RECORDS)
def test_it_does_not_matter_where_the_bytes_are_cut(name: str) -> None:
    raws = said(name, "java")
    whole = [message for raw in [b"".join(raws)] for message in Decoder().feed(raw)]
    draw, rest, decoder, found = random.Random(7), b"".join(raws), Decoder(), []
    while rest:
        cut = draw.randint(1, 9)
        found += decoder.feed(rest[:cut])
        rest = rest[cut:]
    assert found == whole
    assert len(whole) == len(raws)


@pytest.mark.parametrize("name", RECORDS)
def test_the_first_message_is_the_initialise_map(name: str) -> None:
    (first,) = Decoder().feed(said(name, "java")[0])
    assert first.content == ()
    assert first.properties["handler"] == "handle"


@pytest.mark.parametrize("name", ["0.25.0-rolling", "0.34.0-rolling"])
def test_a_continuing_member_of_a_batch_is_an_empty_item(name: str) -> None:
    decoder = Decoder()
    batches = [message for raw in said(name, "java") for message in decoder.feed(raw)][1:]
    assert any(value == b"" for batch in batches for _, value in batch.content)
    assert sum(RESET in batch.properties for batch in batches) == 1
    for batch in batches:
        members = [key for key, _ in batch.content if key is not None and key.endswith(".data")]
        assert len(members) == int(batch.properties[BATCH_SIZE])


def rolling_steps(name: str) -> list[tuple[Message, bytes]]:
    """Each step of Java's with the reply that Java understood."""
    decoder = Decoder()
    asked = [message for raw in said(name, "java") for message in decoder.feed(raw)]
    return list(zip(asked, said(name, "engine"), strict=True))[1:]


@pytest.mark.parametrize("name", ["0.25.0-rolling", "0.34.0-rolling"])
def test_our_steps_are_byte_for_byte_what_java_understood(name: str) -> None:
    encoder, left = Encoder(width(name)), list[int]()
    for message, understood in rolling_steps(name):
        bodies = [
            json.loads(value)
            for key, value in message.content
            if key is not None and key.endswith(".data") and value
        ]
        if any("break" in body for body in bodies):
            left = []
            assert understood == encoder.reply(500, "asked for")
            continue
        left += [body.get("tokens", 0) for body in bodies]
        items = [
            encoder.item(f"t{count} ".encode(), last=count == 1)
            if count
            else encoder.item_of(encoder.error_map(424, "asked for"))
            for count in left
        ]
        headers = [(f"batch_{i}_Content-Type", "application/jsonlines") for i in range(len(left))]
        assert encoder.batch_reply(headers, items) == understood
        left = [count - 1 for count in left if count > 1]


def test_our_async_replies_are_byte_for_byte_what_java_understood() -> None:
    name = "0.34.0-async"
    encoder, decoder = Encoder(Width.LONG), Decoder()
    asked = [message for raw in said(name, "java") for message in decoder.feed(raw)][1:]
    ours = set()
    for message in asked:
        body, track = json.loads(message.content[0][1]), message.properties[TRACKING_ID]
        if "code" in body:
            ours.add(encoder.async_reply(track, encoder.error_map(424, "asked for")))
        for left in range(body.get("tokens", 0), 0, -1):
            piece = encoder.data_map(f"t{left} ".encode(), last=left == 1)
            ours.add(encoder.async_reply(track, piece))
    assert ours == set(said(name, "engine")[1:])


@pytest.mark.parametrize("name", ["0.25.0-plain", "0.34.0-plain"])
def test_our_plain_replies_and_streams_are_byte_for_byte_what_java_understood(name: str) -> None:
    encoder, understood = Encoder(width(name)), said(name, "engine")
    stream_head = encoder.stream_head(200, "OK", [("content-type", "application/jsonlines")])
    frames = [encoder.stream_frames(f"chunk {i}\n".encode()) for i in range(3)]
    error = [("data", b'{"error":"asked for"}')]
    batch = [(f"batch_00{i}.data", f'{{"echo": {i + 1}}}'.encode()) for i in range(3)]
    body = '{"echo": "é 你好 👋"}'.encode()
    assert understood == [
        encoder.reply(200, "OK"),
        encoder.reply(200, "OK", [("X-Seen", "yes")], [("data", body)]),
        stream_head,
        *frames,
        STREAM_END,
        stream_head,
        STREAM_END,
        encoder.reply(424, "asked for", [("content-type", "a/b")], error),
        encoder.reply(200, "OK", [("X-Seen", "yes")], [("data", b'{"a":1}')]),
        encoder.reply(200, "OK", [], batch),
    ]
