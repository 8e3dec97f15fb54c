"""Users' own rolling batches, written for either generation of the base class."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from lmi.custom.answers import read_map
from lmi.custom.api import Input, Output, TextInput
from lmi.custom.api.request import Request
from lmi.custom.api.rolling_batch import (
    RollingBatch,
    filter_unused_generation_params,
    stop_on_any_exception,
)
from lmi.custom.api.rolling_output import rolling_batch_inference


class Spelling(RollingBatch):
    """Answers with its input, a letter a step."""

    @stop_on_any_exception
    def inference(self, requests: list[Request]) -> list[dict[str, Any]]:
        self.add_new_requests(requests)
        for request in self.active_requests:
            at = len(request.request_output.sequences[0].tokens)
            text = request.input_text
            if text[at] == "!":
                raise RuntimeError("boom")
            request.set_next_token(text[at], last_token=at == len(text) - 1, finish_reason=None)
        return self.postprocess_results()


class Older(RollingBatch):
    """The same for LMI 0.25."""

    def __init__(self, device: str, **kwargs: Any) -> None:
        super().__init__(device, **kwargs)

    def inference(self, input_data: list[str], parameters: list[Any]) -> list[dict[str, Any]]:
        self.get_new_requests(input_data, parameters, len(input_data))
        for request in self.active_requests:
            request.set_next_token("x", last_token=request.parameters["last"])
        return self.postprocess_results()

    def preprocess_requests(self, requests: list[Request]) -> None:
        raise AssertionError("nobody calls this")


def request(text: str, number: int = 0, **parameters: Any) -> Request:
    return Request(
        TextInput(number, input_text=text, parameters=parameters, output_formatter="none")
    )


def test_each_step_sends_what_is_new_and_drops_what_has_finished() -> None:
    batch = Spelling(None)
    first = batch.inference([request("ab"), request("cde")])
    assert [(step["data"], step["last"]) for step in first] == [("a", False), ("c", False)]
    second = batch.inference([request("f")])
    assert [(step["data"], step["last"]) for step in second] == [
        ("b", True),
        ("d", False),
        ("f", True),
    ]
    assert [(step["data"], step["last"]) for step in batch.inference([])] == [("e", True)]
    assert batch.active_requests == []


def test_an_exception_ends_all_requests_with_an_error_and_the_batch_lives() -> None:
    batch = Spelling(None)
    failed = batch.inference([request("ab"), request("!")])
    assert [step["last"] for step in failed] == [True, True]
    assert {step["code"] for step in failed} == {424}
    assert batch.inference([request("g")])[0]["data"] == "g"


def test_scripts_for_older_releases_give_texts_and_parameters() -> None:
    batch = Older("cuda:0", output_formatter="none")
    assert batch.device == "cuda:0"
    steps = batch.inference(["a", "b"], [{"last": False}, {"last": True}])
    assert [(step["data"], step["last"]) for step in steps] == [("x", False), ("x", True)]
    steps = batch.inference(["", "c"], [{}, {"last": True}])
    assert [(step["data"], step["last"]) for step in steps] == [("x", False), ("x", True)]
    batch.reset()
    assert batch.active_requests == []


def test_a_whole_answer_waits_for_its_end_and_a_stream_does_not() -> None:
    whole = Request(TextInput(1, input_text="p"))
    whole.set_next_token("a")
    assert whole.get_next_token() == ""
    whole.set_next_token("b", last_token=True, finish_reason="length")
    assert json.loads(whole.get_next_token()) == {"generated_text": "ab"}
    assert whole.is_last_token()
    assert whole.get_content_type() == "application/json"
    streamed = Request(TextInput(1, client_request_id="c-1", parameters={"stream": True}))
    streamed.set_next_token("a")
    assert json.loads(streamed.get_next_token())["token"]["text"] == "a"
    streamed.reset_next_token()
    assert streamed.get_next_token() == ""
    assert streamed.get_client_request_id() == "c-1"


def test_a_step_becomes_a_binary_map_for_each_part_in_order() -> None:
    inputs = Input()
    inputs.properties = {"batch_size": "3", "batch_000.requestId": "r0"}
    for index in range(3):
        inputs.content.add(f"batch_{index:03}.data", bytearray(b"x"))
    parsed = SimpleNamespace(
        batch=inputs.get_batches(), requests=[request("ab"), request("c")], errors={1: "bad"}
    )
    output = rolling_batch_inference(parsed, inputs, Output(), Spelling(None))
    steps = [read_map(bytes(value)) for value in output.content.values]
    assert steps == [
        {"data": "a", "last": "False"},
        {"data": "", "last": "True", "code": "424", "error": "bad"},
        {"data": "c", "last": "True"},
    ]
    assert output.content.keys == ["batch_0.data", "batch_1.data", "batch_2.data"]
    assert output.properties["batch_0_requestId"] == "r0"
    assert output.properties["batch_2_Content-Type"] == "text/plain"


def test_parameters_that_a_backend_lacks_are_named_and_removed_if_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = filter_unused_generation_params({"a": 1, "z": 2}, {"a"}, "mine", True)
    assert found == {"a": 1}
    assert "mine has no parameters z" in caplog.text
    assert filter_unused_generation_params({"z": 2}, {"a"}, "mine") == {"z": 2}


def test_what_a_subclass_lacks_says_so() -> None:
    batch = Spelling(None)
    with pytest.raises(RuntimeError, match="Spelling has no get_tokenizer"):
        batch.get_tokenizer()
    for method in (batch.add_lora, batch.remove_lora, batch.pin_lora):
        with pytest.raises(NotImplementedError, match="Spelling has no adapters"):
            method("x")
