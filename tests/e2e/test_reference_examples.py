"""Scripts of the kinds that the reference publishes run unchanged, by the command and by a server.

Each exercises the same imports and calls as published ones; the list of those is in
docs/custom-handlers.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.serving import DEMO, OURS, serving

pytestmark = pytest.mark.slow
EXAMPLES = DEMO.parent

ECHO = """
from djl_python import Input
from djl_python import Output


def handle(inputs: Input):
    if inputs.contains_key("exception"):
        raise ValueError(inputs.get_as_string("exception"))
    outputs = Output()
    outputs.add(inputs.get_as_bytes(), key="data")
    if inputs.get_property("content-type"):
        outputs.add_property("content-type", inputs.get_property("content-type"))
    return outputs
"""
ASYNCHRONOUS = """
import asyncio
from djl_python import Input, Output
from djl_python.async_utils import create_non_stream_output, create_stream_chunk_output
from djl_python.encode_decode import decode


async def chunks(words):
    for word in words:
        await asyncio.sleep(0)
        yield create_stream_chunk_output({"word": word}, False)
    yield create_stream_chunk_output("", True)


async def handle(inputs: Input):
    request = inputs.get_batches()[0]
    payload = decode(request, request.get_property("Content-Type"))
    if inputs.is_empty():
        return None
    words = payload["inputs"].split()
    if payload.get("stream"):
        return chunks(words)
    return create_non_stream_output({"custom_handler_used": True, "words": words})
"""
STATEFUL = """
from djl_python import Input, Output, SessionManager

manager = None


def handle(inputs: Input):
    global manager
    if manager is None:
        manager = SessionManager(inputs.get_properties())
    if inputs.is_empty():
        return None
    session = manager.create_session()
    array = session.get_as_numpy("state", shape=(4, 2), create=True)
    array.fill(1)
    session.put("metadata", "test")
    again = manager.get_session(session.session_id)
    outputs = Output().add_property("X-Amzn-SageMaker-Session-Id", session.session_id)
    outputs.add_as_json([again.get("metadata"), float(again.get_as_numpy("state", (4, 2)).sum())])
    manager.close_session(session.session_id)
    return outputs
"""
STREAMING = """
from djl_python import Input, Output


def handle(inputs: Input):
    if inputs.is_empty():
        return None
    outputs = Output()
    outputs.add_property("content-type", "application/jsonlines")
    outputs.add_stream_content(iter(inputs.get_as_json()["inputs"].split()))
    return outputs
"""
OUT_OF_MEMORY = """
from djl_python import Input, Output


class OutOfMemoryError(Exception):
    pass


def handle(inputs: Input):
    if inputs.is_empty():
        return None
    raise OutOfMemoryError("no room")
"""
OLD_OUTPUT_FORMATTER = """
from djl_python.output_formatter import TextGenerationOutput
import json


def custom_output_formatter(request_output: TextGenerationOutput) -> str:
    best_sequence = request_output.sequences[request_output.best_sequence_index]
    next_token, first_token, last_token = best_sequence.get_next_token()
    result = {"token_id": next_token.id, "token_text": next_token.text}
    if last_token:
        result["finish_reason"] = best_sequence.finish_reason
    return json.dumps(result) + "\\n"
"""
INPUT_FORMATTER = """
from djl_python.input_parser import input_formatter
import helper_of_mine


@input_formatter
def custom_input_formatter(decoded_payload: dict, tokenizer=None, **kwargs) -> dict:
    decoded_payload["inputs"] = decoded_payload.pop("inputPrompt")
    decoded_payload.setdefault("parameters", {}).setdefault("max_new_tokens", helper_of_mine.MOST)
    return decoded_payload
"""
INPUT_OF_MY_OWN = """
from typing import Any
from djl_python import Input
from djl_python.encode_decode import decode
from djl_python.input_parser import input_formatter
from djl_python.request_io import RequestInput, TextInput


class MyInput(TextInput):
    mine: Any


@input_formatter
def custom_input_formatter(input_item: Input, **kwargs) -> RequestInput:
    found = decode(input_item, input_item.get_property("Content-Type"))
    request_input = MyInput()
    request_input.input_text = found.pop("inputs", found)
    request_input.parameters = found.pop("parameters", {})
    request_input.mine = found.pop("mine", None)
    return request_input
"""
RESPONSE_FORMATTER = """
from djl_python.output_formatter import output_formatter


@output_formatter
def custom_output_formatter(output):
    if hasattr(output, "choices") and len(output.choices) > 0:
        first = output.choices[0]
        text = first.text if hasattr(first, "text") else first.message.content
        return {"custom_formatter_applied": True, "generated_text": text, "model": output.model}
    return {"custom_formatter_applied": True}
"""
CHANGED_IN_PLACE = """
from djl_python.output_formatter import output_formatter


@output_formatter
def custom_output_formatter(response):
    first_choice = response.choices[0]
    if hasattr(first_choice, "text"):
        first_choice.text = first_choice.text.upper()
    return response
"""
WITHOUT_HANDLE = """
from djl_python import Input, Output


def some_other_function():
    return "no handle: the engine answers"
"""


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def ask(folder: Path, code: str, request: Any, *sets: str) -> dict[str, Any]:
    """What `lmi test-handler` says of one request."""
    (folder / "model.py").write_text(code)
    words = [word for each in sets for word in ("--set", each)]
    done = subprocess.run(
        [sys.executable, "-m", "lmi.cli", "test-handler", str(folder), "-", "--json", *words],
        input=json.dumps(request),
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert isinstance(answer, dict)
    return answer


ENGINE = "engine=echo"
WORDS = {"inputs": "one two", "parameters": {"max_new_tokens": 3}}


def test_an_echo_answers_with_its_body_and_raises_on_demand(tmp_path: Path) -> None:
    asked = {"headers": {"content-type": "text/x"}, "content": {"data": "hello"}}
    answer = ask(tmp_path, ECHO, asked)
    assert (answer["status"], answer["body"]) == (200, "hello")
    assert answer["headers"]["content-type"] == "text/x"
    answer = ask(tmp_path, ECHO, {"content": {"exception": "boom"}})
    assert answer["status"] == 424
    assert json.loads(answer["body"])["error"] == "boom"


def test_an_asynchronous_handler_answers_whole_and_streamed(tmp_path: Path) -> None:
    answer = ask(tmp_path, ASYNCHRONOUS, {"inputs": "a b"})
    assert json.loads(answer["body"]) == {"custom_handler_used": True, "words": ["a", "b"]}
    answer = ask(tmp_path, ASYNCHRONOUS, {"inputs": "a b", "stream": True})
    lines = [json.loads(line) for line in answer["body"].splitlines() if line]
    assert lines == [{"word": "a"}, {"word": "b"}]


def test_a_stateful_handler_keeps_sessions(tmp_path: Path) -> None:
    answer = ask(tmp_path, STATEFUL, {}, f"option.sessions_path={tmp_path / 'sessions'}")
    assert json.loads(answer["body"]) == ["test", 8.0]
    assert len(answer["headers"]["x-amzn-sagemaker-session-id"]) == 36


def test_a_stream_is_lines_of_outputs(tmp_path: Path) -> None:
    answer = ask(tmp_path, STREAMING, {"inputs": "a b"})
    assert answer["body"] == '{"outputs":"a"}\n{"outputs":"b"}\n'
    assert answer["headers"]["content-type"] == "application/jsonlines"


def test_memory_that_ran_out_is_known_by_the_class(tmp_path: Path) -> None:
    assert ask(tmp_path, OUT_OF_MEMORY, {"inputs": "a"})["status"] == 507


def test_an_older_output_formatter_named_by_an_option_writes_each_token(tmp_path: Path) -> None:
    name = "option.output_formatter=custom_output_formatter"
    answer = ask(tmp_path, OLD_OUTPUT_FORMATTER, WORDS, ENGINE, name)
    lines = [json.loads(line) for line in answer["body"].splitlines()]
    assert len(lines) == 3
    assert [line.get("finish_reason") for line in lines] == [None, None, "length"]


def test_an_input_formatter_rewrites_bodies_with_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "helper_of_mine.py").write_text("MOST = 2\n")
    answer = ask(tmp_path, INPUT_FORMATTER, {"inputPrompt": "abcdef"}, ENGINE)
    assert json.loads(answer["body"]) == {"generated_text": "abcdef"}


def test_an_input_formatter_makes_a_request_of_its_own_kind(tmp_path: Path) -> None:
    answer = ask(tmp_path, INPUT_OF_MY_OWN, {**WORDS, "mine": 1}, ENGINE)
    assert json.loads(answer["body"])["generated_text"].startswith("one two")


def test_a_formatter_of_responses_writes_the_whole_answer(tmp_path: Path) -> None:
    answer = ask(tmp_path, RESPONSE_FORMATTER, WORDS, ENGINE)
    found = json.loads(answer["body"])
    assert found["custom_formatter_applied"] is True
    assert found["generated_text"].startswith("one two")


def test_a_formatter_may_change_the_response_that_it_gets(tmp_path: Path) -> None:
    answer = ask(tmp_path, CHANGED_IN_PLACE, WORDS, ENGINE)
    assert json.loads(answer["body"])["choices"][0]["text"].startswith("ONE TWO")


def test_a_model_py_without_handle_leaves_the_engine_to_answer(tmp_path: Path) -> None:
    answer = ask(tmp_path, WITHOUT_HANDLE, WORDS, ENGINE)
    assert json.loads(answer["body"])["generated_text"].startswith("one two")


def test_the_example_of_a_handler_is_served_in_batches_and_streams(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", str(EXAMPLES / "custom-handler")) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for number in range(12):
            text = f"to be or not to be {number}"
            found = client.post("/invocations", json={"text": text})
            assert found.status_code == 200, found.text
            assert found.json() == {word: text.split().count(word) for word in text.split()}
        streamed = client.post("/invocations", json={"text": "to be", "stream": True})
        assert streamed.text == "to\nbe\n"
        wrong = client.post("/invocations", json={"no": "text"})
        assert wrong.status_code == 424
        assert "text" in wrong.json()["error"]


def test_the_example_of_formatters_reads_and_writes_its_own_bodies(tmp_path: Path) -> None:
    with serving(tmp_path / "log", str(EXAMPLES / "custom-formatters")) as server:
        asked = {"question": "The with", "words": 4}
        found = httpx.post(f"{server.url}/invocations", json=asked, timeout=30)
        lines = [json.loads(line) for line in found.text.splitlines()]
        assert [line["number"] for line in lines] == [0, 1, 2, 3]
        assert lines[-1]["ended"] == "length"
