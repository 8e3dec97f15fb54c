"""Answers as handlers build them."""

from __future__ import annotations

import datetime
import json
import logging
import math

import numpy as np
import pytest

from lmi.custom.answers import read_map
from lmi.custom.api import Output


def test_text_and_bytes_stay_and_anything_else_is_json() -> None:
    output = Output().add("ä", key="a").add(b"\x00", "b").add(bytearray(b"c")).add({"d": "ä"}, "d")
    assert output.content.get_values() == ["ä".encode(), b"\x00", b"c", '{"d":"ä"}'.encode()]
    assert all(isinstance(value, bytearray) for value in output.content.get_values())
    assert output.content.get_keys() == ["a", "b", None, "d"]


def test_a_batchs_items_carry_their_place() -> None:
    output = Output().add("x", "data", batch_index=0).add("y", batch_index=11)
    assert output.content.get_keys() == ["batch_0.data", "batch_11.data"]


def test_a_key_that_is_no_text_becomes_one_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        output = Output().add("x", key=3)  # type: ignore[arg-type]
    assert output.content.get_keys() == ["3"]
    assert "should be text, not int" in caplog.text


def test_values_of_numpy_and_dates_have_a_form_in_json() -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    value = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "a": np.arange(3),
        "t": moment,
        "d": moment.date(),
    }
    found = json.loads(Output().add_as_json(value).content.value_at(0))
    wanted = {"i": 3, "f": 0.5, "b": True, "a": [0, 1, 2], "t": "2024-01-02 03:04:05"}
    assert found == {**wanted, "d": "2024-01-02"}


def test_what_json_does_not_have_is_refused() -> None:
    for value in (math.nan, math.inf, np.array([math.nan])):
        with pytest.raises(ValueError, match="JSON"):
            Output().add_as_json(value)
    with pytest.raises(TypeError, match="type object has no form"):
        Output().add_as_json(object())


def test_an_error_is_a_status_and_a_json_body() -> None:
    output = Output().error("no such dog")
    assert (output.code, output.message) == (424, "invoke handler failure")
    assert output.get_property("content-type") == "application/json"
    assert json.loads(output.content.value_at(0)) == {
        "code": 424,
        "message": "invoke handler failure",
        "error": "no such dog",
    }
    assert Output().error("x", code=400, message="m").code == 400


def test_setters_chain_and_properties_are_found_by_their_very_name() -> None:
    output = Output().set_code(201).set_message("Created").add_property("A", "1")
    assert (output.code, output.message) == (201, "Created")
    assert (output.get_property("A"), output.get_property("a")) == ("1", None)
    assert output.get_properties() == {"A": "1"}


def test_a_streams_items_are_lines_of_outputs_unless_the_formatter_says_otherwise() -> None:
    output = Output().add_stream_content(["a", ["b"]])
    assert [output.stream_chunk(item) for item in output.stream_content] == [
        b'{"outputs":"a"}\n',
        b'{"outputs":["b"]}\n',
    ]
    raw = Output().add_stream_content(iter(["a", b"b"]), None)
    assert [raw.stream_chunk(item) for item in raw.stream_content] == [b"a", b"b"]
    upper = Output().add_stream_content(["a"], lambda item: item.upper())
    assert [upper.stream_chunk(item) for item in upper.stream_content] == [b"A"]
    with pytest.raises(TypeError, match="a stream's item is a int"):
        raw.stream_chunk(3)


def test_what_is_to_be_done_afterwards_is_kept_and_done() -> None:
    done: list[int] = []
    output = Output().finalize(lambda *numbers: done.extend(numbers), 1, 2)
    assert done == []
    output.execute_finalize()
    assert done == [1, 2]
    assert Output().execute_finalize() is None


def test_a_binary_map_is_texts_with_their_lengths() -> None:
    encoded = Output.binary_encode({"data": "ä", "last": True})
    assert encoded.hex() == (
        "0002"
        + "00000004"
        + b"data".hex()
        + "00000002"
        + "ä".encode().hex()
        + "00000004"
        + b"last".hex()
        + "00000004"
        + b"True".hex()
    )
    assert read_map(bytes(encoded)) == {"data": "ä", "last": "True"}


def test_printing_an_answer_shows_no_content() -> None:
    shown = str(Output().add("secret", "data"))
    assert "secret" not in shown
    assert "data: bytearray" in shown
