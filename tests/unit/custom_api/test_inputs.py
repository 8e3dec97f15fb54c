"""Requests as handlers read them."""

from __future__ import annotations

import io
import json
import socket

import pytest

from lmi.custom.api import Input, Output


def make(content: dict[str | None, bytes], **properties: str) -> Input:
    inputs = Input()
    inputs.properties = {name.replace("_", "-"): value for name, value in properties.items()}
    for key, value in content.items():
        inputs.content.add(key, bytearray(value))
    return inputs


def test_the_body_is_the_item_data_else_the_first() -> None:
    assert make({"q": b"1", "data": b"2"}).get_as_bytes() == b"2"
    assert make({"q": b"1", "r": b"2"}).get_as_bytes() == b"1"
    assert make({None: b"1"}).get_as_bytes() == b"1"
    assert make({}).get_as_bytes() is None
    assert make({"data": b""}).get_as_bytes() == b""


def test_an_item_that_is_missing_is_named_with_those_that_are_there() -> None:
    with pytest.raises(KeyError, match=r"no item 'x', only \['q'\]"):
        make({"q": b"1"}).get_as_bytes("x")


def test_a_request_without_content_says_so() -> None:
    assert make({}).is_empty()
    assert make({}).get_data() is None
    for read in (Input.get_as_string, Input.get_as_json, Input.get_as_csv, Input.get_as_numpy):
        with pytest.raises(ValueError, match="the request has no content"):
            read(make({}))


def test_properties_are_found_whatever_their_case() -> None:
    inputs = make({}, Content_Type="text/plain", accept="a")
    assert inputs.get_property("content-type") == "text/plain"
    assert inputs.get_property("ACCEPT") == "a"
    assert inputs.get_property("absent") is None


def test_the_content_type_says_how_data_is_read() -> None:
    assert make({"data": b'{"a": 1}'}, Content_Type="application/json; x").get_data() == {"a": 1}
    assert make({"data": "ä".encode()}, content_type="text/plain").get_data() == "ä"
    assert make({"data": b"\x00"}, content_type="application/octet-stream").get_data() == b"\x00"
    assert make({"data": b"a,b\n1,2\n"}).get_as_csv() == [{"a": "1", "b": "2"}]
    assert make({"data": b"1"}).contains_key("data")
    assert not make({"data": b"1"}).contains_key("q")


def test_a_picture_is_opened() -> None:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (3, 2)).save(out, format="PNG")
    found = make({"data": out.getvalue()}, content_type="image/png").get_data()
    assert found.size == (3, 2)


def test_a_batch_is_taken_apart_by_the_numbers_in_its_keys() -> None:
    inputs = Input()
    inputs.properties = {"batch_size": "1200", "batch_007.a": "x", "batch_1100_b.c": "y"}
    for index in range(1200):
        inputs.content.add(f"batch_{index:03}.data", bytearray(str(index).encode()))
    parts = inputs.get_batches()
    assert [part.get_as_string() for part in parts] == [str(index) for index in range(1200)]
    assert parts[7].properties == {"a": "x"}
    assert parts[1100].properties == {"b.c": "y"}
    assert inputs.is_batch()
    assert inputs.get_batch_size() == 1200


def test_a_request_alone_is_its_own_batch() -> None:
    inputs = make({"data": b"1"})
    assert inputs.get_batches() == [inputs]
    assert inputs.get_batch_size() == 1


@pytest.mark.parametrize("key", ["batch_002.data", "batch_x.data", "data", "batch_-1.data"])
def test_a_part_that_belongs_to_no_request_is_refused(key: str) -> None:
    inputs = Input()
    inputs.properties = {"batch_size": "2"}
    inputs.content.add(key, bytearray(b"1"))
    with pytest.raises(ValueError, match=r"batch_000\.<name> to batch_001\.<name>"):
        inputs.get_batches()


def test_printing_shows_properties_and_data() -> None:
    shown = str(make({"data": b"[1]"}, content_type="application/json"))
    assert "content-type" in shown
    assert "data: [1]" in shown


def test_a_request_is_read_from_a_socket() -> None:
    here, there = socket.socketpair()
    with here, there:

        def text(value: str) -> bytes:
            return len(value.encode()).to_bytes(4) + value.encode()

        body = json.dumps({"a": "ä"}).encode()
        there.sendall(
            (2).to_bytes(2)
            + text("handler")
            + text("predict")
            + text("k")
            + text("v")
            + (2).to_bytes(2)
            + (-1).to_bytes(4, signed=True)
            + (1).to_bytes(4)
            + b"x"
            + text("data")
            + len(body).to_bytes(4)
            + body
        )
        inputs = Input()
        inputs.read(here)
        assert inputs.get_function_name() == "predict"
        assert inputs.properties["k"] == "v"
        assert inputs.content.get_keys() == [None, "data"]
        assert isinstance(inputs.get_as_bytes(), bytearray)
        assert inputs.get_as_json() == {"a": "ä"}
        there.close()
        with pytest.raises(ConnectionError, match="2 bytes before"):
            Input().read(here)


def test_an_answer_is_sent_over_a_socket_and_a_stream_ends_with_five_zeros() -> None:
    here, there = socket.socketpair()
    with here, there:
        Output(204, "No content").send(here)
        assert there.recv(100).hex() == "00cc0000000a" + b"No content".hex() + "00000000"
        Output().add_property("k", "v").add_stream_content(["a", b"b"], None).send(here)
        here.close()
        data = b"".join(iter(lambda: there.recv(100), b""))
        head = b"\x00\xc8" + b"\x00\x00\x00\x02OK" + b"\x00\x01" + b"\x00\x00\x00\x01k"
        frames = b"\x01\x00\x00\x00\x01a" + b"\x01\x00\x00\x00\x01b" + bytes(5)
        assert data == head + b"\x00\x00\x00\x01v" + b"\xff\xff" + frames
