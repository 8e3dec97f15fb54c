"""Results as answers, whole, in batches and in maps; messages as bytes."""

from __future__ import annotations

import pytest

from lmi.core import (
    Call,
    ConfigError,
    EngineDead,
    EngineError,
    Head,
    LmiError,
    ModelError,
    OutOfMemory,
)
from lmi.custom import batches
from lmi.custom.answers import Stream, Whole, failure, interpret, item, read_map
from lmi.custom.api.outputs import Output
from lmi.custom.inputs import batch, single
from lmi.custom.messages import Fault, Part, Request, Work, decode_from_front, decode_from_worker
from lmi.custom.messages import frame as framed
from lmi.ipc.framing import Deframer


def test_the_body_is_the_item_data_else_the_first() -> None:
    both = Output().add("first", key="a").add("body", key="data")
    assert interpret(both)[1] == b"body"
    assert interpret(Output().add("first", key="a").add("b", key="b"))[1] == b"first"
    assert interpret(Output())[1] == b""


def test_headers_are_in_lower_case_and_the_reason_is_one_line() -> None:
    output = Output(404, "not\r\nhere").add_property("Content-Type", "a/b").add_property("X", 1)
    whole = interpret(output)
    assert isinstance(whole, Whole)
    assert whole.head == Head(404, "not here", (("content-type", "a/b"), ("x", "1")))


def test_iterators_are_streams_and_lists_are_not() -> None:
    assert isinstance(interpret(iter([1])), Stream)
    assert isinstance(interpret([1]), Whole)
    assert item({"a": 1}).data == b'{"a":1}\n'
    assert item(b"a").data == b"a"


def test_a_value_without_a_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="object"):
        interpret(object())


def test_only_whole_maps_are_read_as_maps() -> None:
    data = bytes(Output.binary_encode({"data": "x", "last": True}))
    assert read_map(data) == {"data": "x", "last": "True"}
    for cut in range(len(data)):
        assert read_map(data[:cut]) is None
    assert read_map(data + b"\0") is None
    assert read_map(b"\x00\x00") is None
    assert interpret(Output().add(b"\x00\x01plain"))[1] == b"\x00\x01plain"


def test_a_failure_is_the_references_error_body() -> None:
    answer = failure(ValueError("bad\nthing"))
    assert answer.head.status == 424
    assert answer.head.reason == "invoke handler failure"
    assert b'"error":"bad\\nthing"' in answer.body
    assert failure(MemoryError()).head == Head(
        507, "MemoryError", (("content-type", "application/json"),)
    )


# Batches


def requests(count: int) -> list[Request]:
    return [
        Request.of(
            number, Call(((None, b"%d" % number), ("k", b"v")), {"x": str(number)}), "handle"
        )
        for number in range(count)
    ]


def test_a_batch_can_be_taken_apart_into_its_requests() -> None:
    parts = batch(requests(1200), {"model_dir": "/m"}).get_batches()
    assert len(parts) == 1200
    assert parts[1007].get_as_bytes() == b"1007"
    assert parts[1007].get_property("X") == "1007"
    assert parts[1007].get_as_bytes("k") == b"v"


def test_a_request_alone_has_no_prefixes_and_its_own_properties_win() -> None:
    inputs = single(requests(1)[0], {"x": "model's", "model_dir": "/m"})
    assert not inputs.is_batch()
    assert inputs.get_property("x") == "0"
    assert inputs.get_property("model_dir") == "/m"


def test_answers_go_by_their_index_and_not_by_their_order() -> None:
    output = Output().add("b", batch_index=1).add("a", batch_index=0)
    assert [whole.body for whole in batches.split(output, 2)] == [b"a", b"b"]


def test_an_output_with_an_error_is_everybodys() -> None:
    answers = batches.split(Output().error("no"), 3)
    assert [answer.head.status for answer in answers] == [424] * 3


def test_a_list_of_as_many_results_is_taken_one_by_one() -> None:
    assert [whole.body for whole in batches.split([{"a": 1}, "b"], 2)] == [b'{"a":1}', b"b"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Output().add("one"), "batch_0 to batch_1"),
        (Output().add("a", batch_index=0), "batch_0.data"),
        (Output().add("a", batch_index=1).add("b", batch_index=2), "batch_0 to batch_1"),
        ({"a": 1}, "dict"),
        (["one"], "a list of 1 results"),
        (Output().add_stream_content(iter(())), "batch_size=1"),
    ],
)
def test_an_answer_that_cannot_be_told_apart_says_what_is_wanted(result: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        batches.split(result, 2)


# Messages


def test_messages_survive_the_way_in_any_pieces() -> None:
    work = Work(requests(2))
    part = Part(3, b"\x00\xff", (200, "OK", [("a", "b")]), True, Fault("engine", "x"))
    data = bytes(framed(work)) + bytes(framed(part))
    for size in (1, 3, 7, len(data)):
        deframer = Deframer()
        frames = [
            each for at in range(0, len(data), size) for each in deframer.feed(data[at : at + size])
        ]
        assert decode_from_front(frames[0]) == work
        assert decode_from_worker(frames[1]) == part


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("handle()", None, "model.py:1", "expected handle(inputs)"),
        ModelError("a"),
        OutOfMemory("b"),
        EngineError("c"),
        EngineDead("d"),
    ],
)
def test_an_error_arrives_as_what_it_was(error: LmiError) -> None:
    found = Fault.of(error).exception()
    assert type(found) is type(error)
    assert str(found) == str(error)
