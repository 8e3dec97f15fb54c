"""Trying a handler by hand or in a script's own tests, as `djl_python.test_model` does.

`lmi test-handler` is the tool with more to say; this one keeps its names and its output.
"""

from __future__ import annotations

import argparse
import json
import logging
import mimetypes
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from lmi.config.properties import load
from lmi.custom.answers import read_map
from lmi.custom.api.inputs import Input
from lmi.custom.api.ndlist import to_nd_list, to_npz
from lmi.custom.api.outputs import Output
from lmi.custom.api.service import ModelService, load_model_service

_KINDS: Final = {".ndlist": "tensor/ndlist", ".npz": "tensor/npz", ".txt": "text/plain"}


def create_request(input_files: Sequence[str], parameters: Sequence[str] | None = None) -> Input:
    """A request of items `key=value` or values alone; a value that is a file stands for its bytes.

    parameters: properties as `key=value`. Raises ValueError for one that is not.
    """
    request = _request()
    for each in parameters or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise ValueError(f"parameter {each!r}: expected name=value")
        request.properties[name] = value
    for each in input_files:
        key, equals, value = each.partition("=")
        if not equals or key.startswith("{"):
            key, value = "", each
        file = Path(value)
        content = file.read_bytes() if _is_file(file) else value.encode()
        if key in ("", "data") or "content-type" not in request.properties:
            request.properties["content-type"] = _kind(file if _is_file(file) else None, value)
        request.content.add(key or None, bytearray(content))
    return request


def create_json_request(value: Any, key: str | None = None) -> Input:
    """A request with an item of JSON."""
    return _with(bytearray(json.dumps(value).encode()), "application/json", key)


def create_text_request(text: str, key: str | None = None) -> Input:
    """A request with an item of text."""
    return _with(bytearray(text.encode()), "text/plain", key)


def create_numpy_request(list: Sequence[Any], key: str | None = None) -> Input:
    """A request with arrays as an ndlist."""
    return _with(to_nd_list(list), "tensor/ndlist", key)


def create_npz_request(list: Sequence[Any], key: str | None = None) -> Input:
    """A request with arrays as an npz."""
    return _with(bytearray(to_npz(list)), "tensor/npz", key)


def create_concurrent_batch_request(
    inputs: Sequence[Mapping[str, Any]],
    properties: Sequence[Mapping[str, Any]] | None = None,
    serving_properties: Mapping[str, Any] | None = None,
) -> Input:
    """A batch of JSON requests. properties: of each; serving_properties: of all together."""
    request = Input()
    request.properties = dict(serving_properties or {})
    for index, own in enumerate(properties or ()):
        for name, value in own.items():
            request.properties[f"batch_{index:03}.{name}"] = value
    for index, body in enumerate(inputs):
        data = bytearray(json.dumps(body).encode())
        request.content.add(f"batch_{index:03}.data", data)
    request.properties["batch_size"] = len(inputs)
    request.function_name = request.properties.get("handler", "handle")
    return request


def create_3p_request(
    body: Mapping[str, Any], key: str | None = None, stream: bool = False
) -> Input:
    """A request as SageMaker forwards it for a platform of third parties."""
    request = create_json_request(dict(body), key)
    api = "InvokeEndpointWithResponseStream" if stream else "InvokeEndpoint"
    request.properties["X-Amzn-SageMaker-Forwarded-Api"] = api
    return request


def extract_output_as_input(outputs: Output) -> Input:
    """An answer as the next handler's request."""
    request = Input()
    request.properties, request.content = outputs.properties, outputs.content
    return request


def extract_output_as_bytes(outputs: Output, key: str | None = None) -> bytearray | None:
    """An answer's item as bytes."""
    return extract_output_as_input(outputs).get_as_bytes(key)


def extract_output_as_numpy(outputs: Output, key: str | None = None) -> list[Any]:
    """An answer's item as the arrays of an ndlist."""
    return extract_output_as_input(outputs).get_as_numpy(key)


def extract_output_as_npz(outputs: Output, key: str | None = None) -> list[Any]:
    """An answer's item as the arrays of an npz."""
    return extract_output_as_input(outputs).get_as_npz(key)


def extract_output_as_string(outputs: Output, key: str | None = None) -> str:
    """An answer's item as text."""
    return extract_output_as_input(outputs).get_as_string(key)


class TestHandler:
    """A handler in this process. entry_point: a file in model_dir, an importable module's name, or
    the module itself. The folder becomes the current one, and importable."""

    __test__ = False  # its name is not a test's

    def __init__(self, entry_point: str | ModuleType, model_dir: str | None = None) -> None:
        self.serving_properties = {**_options(model_dir), **_variables(os.environ)}
        if isinstance(entry_point, str):
            folder = os.path.abspath(model_dir or ".")
            os.chdir(folder)
            if folder not in sys.path:
                sys.path.append(folder)
            self.service = load_model_service(folder, entry_point, "-1")
        else:
            self.service = ModelService(entry_point, model_dir)

    def inference(self, inputs: Input) -> Any:
        """Call the function that a request names."""
        return self.service.invoke_handler(inputs.get_function_name() or "handle", inputs)

    def inference_batch(
        self,
        inputs: Sequence[Mapping[str, Any]],
        properties: Sequence[Mapping[str, Any]] | None = None,
        serving_properties: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the handler with a batch of JSON requests."""
        told = self.serving_properties if serving_properties is None else serving_properties
        return self.inference(create_concurrent_batch_request(inputs, properties, told))

    def inference_rolling_batch(
        self,
        inputs: Sequence[Mapping[str, Any]],
        properties: Sequence[Mapping[str, Any]] | None = None,
        serving_properties: Mapping[str, Any] | None = None,
    ) -> dict[int, str]:
        """Call a handler that keeps a rolling batch until all have finished; the text of each.

        Raises ValueError where an answer is no binary map, RuntimeError for one with an error.
        """
        texts = dict.fromkeys(range(len(inputs)), "")
        live = list(texts)
        bodies: Sequence[Mapping[str, Any]] = inputs
        while live:
            output = self.inference_batch(bodies, properties, serving_properties)
            steps = [read_map(bytes(value)) for value in output.content.values]
            if len(steps) != len(live) or None in steps:
                raise ValueError(f"expected a binary map for each of {len(live)} live requests")
            for index, step in zip(tuple(live), steps, strict=True):
                assert step is not None
                if "code" in step:
                    raise RuntimeError(f"request {index}: {step.get('error')}")
                texts[index] += step.get("data", "")
                if step.get("last", "").lower() == "true":
                    live.remove(index)
            bodies = [{"inputs": ""} for _ in live]
        return texts


def main(words: Sequence[str] | None = None) -> int:
    """The command `djl-test-model`."""
    parser = argparse.ArgumentParser("djl-test-model", description="Call a handler once.")
    parser.add_argument("--model-dir", default=".", help="the model's folder")
    parser.add_argument("--entry-point", default="model.py", help="a file in it, or a module")
    parser.add_argument("--handler", default="handle", help="the function's name")
    parser.add_argument("--input", required=True, nargs="+", help="value, file, or key=either")
    parser.add_argument("--parameters", nargs="+", help="properties as name=value")
    asked = parser.parse_args(words)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    inputs = create_request(asked.input, asked.parameters)
    inputs.function_name = asked.handler
    output = TestHandler(asked.entry_point, asked.model_dir).inference(inputs)
    print(f"output: {output}")
    return 0


def _request() -> Input:
    request = Input()
    request.properties["device_id"] = "-1"
    return request


def _with(value: bytearray, kind: str, key: str | None) -> Input:
    request = _request()
    request.properties["content-type"] = kind
    request.content.add(key, value)
    return request


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that can't be a path
        return False


def _kind(file: Path | None, value: str) -> str:
    """The content type of a file by its name, or of a text by how it begins."""
    if file is None:
        return "application/json" if value[:1] in ("{", "[") else "text/plain"
    known = _KINDS.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    return known or "application/octet-stream"


def _options(model_dir: str | None) -> dict[str, str]:
    """The folder's serving.properties, `option.` left out."""
    file = Path(model_dir or ".", "serving.properties")
    if model_dir is None or not file.is_file():
        return {}
    return {each.key.removeprefix("option."): each.value for each in load(file)}


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for key, value in environ.items():
        if key.startswith("OPTION_"):
            name = key.removeprefix("OPTION_").lower()
            found["entryPoint" if name == "entrypoint" else name] = value
    return found
