"""`lmi test-handler`: requests as people write them, answers as people and machines read them."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lmi.cli import app
from lmi.cli.handler_request import read_request
from lmi.core import ConfigError
from tests.support.functions import write_model


def test_a_body_is_of_the_type_that_its_files_name_says(tmp_path: Path) -> None:
    for name, content_type in (
        ("a.json", "application/json"),
        ("a.txt", "text/plain"),
        ("a.csv", "text/csv"),
        ("a.png", "image/png"),
        ("a", "application/octet-stream"),
    ):
        (tmp_path / name).write_bytes(b'{"inputs": 1}')
        call = read_request(tmp_path / name)
        assert (call.body, call.properties) == (
            b'{"inputs": 1}',
            {"content-type": content_type},
        )


def test_an_object_can_describe_the_whole_request(tmp_path: Path) -> None:
    described = {"headers": {"Accept": "text/csv"}, "body": {"a": 1}, "function": "predict"}
    (tmp_path / "r.json").write_text(json.dumps(described))
    call = read_request(tmp_path / "r.json")
    assert call.body == b'{"a": 1}'
    assert call.properties == {"accept": "text/csv", "content-type": "application/json"}
    assert call.function == "predict"


def test_content_has_items_of_texts_values_and_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    content = {"text": "hi", "number": 3, "image": {"file": "x.png"}}
    (tmp_path / "r.json").write_text(json.dumps({"content": content}))
    call = read_request(tmp_path / "r.json")
    assert call.content == (("text", b"hi"), ("number", b"3"), ("image", b"\x89PNG"))


def test_a_body_with_a_field_of_its_own_named_body_is_a_body(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"body": 1, "inputs": 2}')
    assert read_request(tmp_path / "r.json").body == b'{"body": 1, "inputs": 2}'


def test_standard_input_and_nothing_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1]")))
    assert read_request(Path("-")).body == b"[1]"
    assert read_request(None).body == b"{}"


@pytest.mark.parametrize(
    "text", ['{"headers": [], "body": 1}', '{"content": 3}', '{"content": {"a": {"file": "no"}}}']
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigError):
        read_request(tmp_path / "r.json")


def test_a_request_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read_request(tmp_path / "absent.json")


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command sets up logging for its process, which is the tests' own here."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


MODEL = """
    def handle(inputs):
        if inputs.is_empty():
            return None
        match inputs.get_as_json():
            case "stream":
                return iter(["a", "b"])
            case "fail":
                raise ValueError("asked for")
            case value:
                return {"got": value}
"""


def run(folder: Path, body: object, *options: str) -> Result:
    request = folder / "request.json"
    request.write_text(json.dumps(body))
    return CliRunner().invoke(app, ["test-handler", str(folder), str(request), *options])


@pytest.mark.slow
def test_an_answer_is_shown_with_its_status_and_headers(tmp_path: Path) -> None:
    folder = write_model(tmp_path, MODEL)
    done = run(folder, {"x": 1})
    assert done.exit_code == 0, done.output
    assert "200 OK" in done.stdout
    assert "content-type: application/json" in done.stdout
    assert '"x": 1' in done.stdout


@pytest.mark.slow
def test_machines_get_every_answer_with_its_times(tmp_path: Path) -> None:
    folder = write_model(tmp_path, MODEL)
    document = json.loads(run(folder, "stream", "--json", "--repeat", "3").stdout)
    assert document["ok"]
    assert [answer["body"] for answer in document["answers"]] == ["ab"] * 3
    done = run(folder, "fail", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert not document["ok"]
    assert document["answers"][0]["status"] == 424
    assert "asked for" in document["answers"][0]["body"]


@pytest.mark.slow
def test_code_that_cannot_be_loaded_is_exit_code_2(tmp_path: Path) -> None:
    done = run(write_model(tmp_path, "def handle(): pass"), {})
    assert done.exit_code == 2
    assert "expected handle(inputs: Input)" in done.stderr


@pytest.mark.slow
def test_formatters_run_beside_their_engine(tmp_path: Path) -> None:
    text = """
        from djl_python.output_formatter import RequestOutput, output_formatter
        print("not a part of the answer")
        @output_formatter
        def write(output: RequestOutput) -> str:
            return output.sequences[0].get_next_token().token.text.upper()
    """
    done = run(write_model(tmp_path, text), {"inputs": "abc"}, "--json", "--set", "engine=echo")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["answers"][0]["body"].isupper()
