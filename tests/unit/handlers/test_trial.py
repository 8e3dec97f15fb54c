"""`djl-test-model` and its functions call a handler by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lmi.custom.api import Input, Output
from lmi.custom.stock import trial

HANDLER = """
from djl_python import Input, Output

def handle(inputs: Input):
    return Output().add_as_json({"kind": inputs.get_property("content-type"),
                                 "data": str(inputs.get_data("data") or inputs.get_data()),
                                 "extra": inputs.get_property("extra"),
                                 "folder": inputs.get_property("model_dir") is not None})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path = [*sys.path]
    (tmp_path / "model.py").write_text(HANDLER)
    (tmp_path / "serving.properties").write_text("option.color=red\nbatch_size=2\n")
    yield tmp_path
    sys.path[:] = path


def test_the_command_calls_a_handler_and_prints_its_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model-dir", str(folder), "--input", "data=hello", "--parameters", "extra=1"]
    assert trial.main(words) == 0
    assert capsys.readouterr().out.startswith("output: Output(200, 'OK'")


def test_a_handler_in_this_process_gets_the_folders_options(folder: Path) -> None:
    handler = trial.TestHandler("model.py", str(folder))
    assert handler.serving_properties == {"color": "red", "batch_size": "2"}
    output = handler.inference(trial.create_json_request({"a": 1}, "data"))
    assert trial.extract_output_as_input(output).get_as_json() == {
        "kind": "application/json",
        "data": "{'a': 1}",
        "extra": None,
        "folder": True,
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ('{"a": 1}', "application/json"),
        ("[1]", "application/json"),
        ("data=plain text", "text/plain"),
        ("data={file}.json", "application/json"),
        ("data={file}.png", "image/png"),
        ("data={file}.npz", "tensor/npz"),
        ("data={file}.bin", "application/octet-stream"),
    ],
)
def test_a_value_or_a_files_name_tells_the_content_type(
    value: str, kind: str, tmp_path: Path
) -> None:
    for suffix in ("json", "png", "npz", "bin"):
        (tmp_path / f"f.{suffix}").write_bytes(b"content")
    request = trial.create_request([value.replace("{file}", str(tmp_path / "f"))])
    assert request.get_property("content-type") == kind
    assert request.get_property("device_id") == "-1"
    if "{file}" in value:
        assert request.get_as_bytes() == b"content"
        assert request.content.get_keys() == ["data"]


def test_a_parameter_without_value_is_refused() -> None:
    with pytest.raises(ValueError, match="'x': expected name=value"):
        trial.create_request(["a"], ["x"])


def test_requests_of_every_kind_are_read_back() -> None:
    assert trial.create_text_request("ä").get_data() == "ä"
    for make in (trial.create_numpy_request, trial.create_npz_request):
        assert make([[1, 2]]).get_data()[0].tolist() == [1, 2]
    forwarded = trial.create_3p_request({"prompt": "x"}, stream=True)
    api = forwarded.get_property("x-amzn-sagemaker-forwarded-api")
    assert api == "InvokeEndpointWithResponseStream"


def test_a_batch_has_the_properties_of_each_and_of_all() -> None:
    request = trial.create_concurrent_batch_request([{"a": 1}, {"a": 2}], [{"p": "x"}], {"q": "y"})
    parts = request.get_batches()
    assert [part.get_as_json() for part in parts] == [{"a": 1}, {"a": 2}]
    assert parts[0].properties == {"p": "x"}
    assert request.get_property("q") == "y"


def test_answers_are_read_in_every_form() -> None:
    output = Output().add("text", "data")
    assert trial.extract_output_as_bytes(output) == b"text"
    assert trial.extract_output_as_string(output, "data") == "text"
    assert trial.extract_output_as_numpy(Output().add_as_numpy([[1]]))[0].tolist() == [1]
    assert trial.extract_output_as_npz(Output().add_as_npz([[1]]))[0].tolist() == [1]


def countdown(fail: bool = False) -> trial.TestHandler:
    """A handler with a rolling batch: request i has i + 1 steps."""
    left: list[int] = []

    def handle(inputs: Input) -> Output:
        output = Output()
        parts = inputs.get_batches()
        left.extend(range(len(left) + 1, len(parts) + 1) if not left else ())
        for index in range(len(parts)):
            left[index] -= 1
            step = {"data": str(left[index]), "last": left[index] == 0}
            output.add(
                Output.binary_encode(step | ({"code": 424, "error": "e"} if fail else {})),
                batch_index=index,
            )
        left[:] = [each for each in left if each]
        return output

    module = ModuleType("countdown")
    module.handle = handle  # type: ignore[attr-defined]
    return trial.TestHandler(module)


def test_a_rolling_batch_is_driven_until_all_have_finished() -> None:
    found = countdown().inference_rolling_batch([{"inputs": "a"}] * 3)
    assert found == {0: "0", 1: "10", 2: "210"}
    with pytest.raises(RuntimeError, match="request 0: e"):
        countdown(fail=True).inference_rolling_batch([{"inputs": "a"}])
