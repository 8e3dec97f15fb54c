"""SageMaker's way to write a handler: model_fn, input_fn, predict_fn and output_fn in one file.

`model_fn` is called once with the model's folder, the other three for each request, in that order.
Only `model_fn` must be there; the defaults read JSON, CSV, text and arrays, call the model, and
write JSON.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from lmi.core import ConfigError
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.api.payload import encode_json
from lmi.custom.signatures import check_named, where

WANTED: Final = "model_fn(model_dir)"

_PARAMETERS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "model_fn": (("model_dir",),),
    "input_fn": (("request_body",), ("content_type", "request_content_type")),
    "predict_fn": (("input_data",), ("model",)),
    "output_fn": (("prediction",), ("accept", "response_content_type")),
}

_JSON: Final = "application/json"
_ANY: Final = frozenset({"", "*/*"})


def find(module: ModuleType) -> Script | None:
    """A module's functions, checked by their parameters' names; None without a `model_fn`.

    Raises ConfigError where a name is right and a parameter is not.
    """
    functions: dict[str, Callable[..., Any]] = {}
    for name, parameters in _PARAMETERS.items():
        function = getattr(module, name, None)
        if not callable(function):
            continue
        shown = ", ".join(allowed[0] for allowed in parameters)
        check_named(function, parameters, f"{name}({shown})")
        functions[name] = function
    if not functions:
        return None
    if "model_fn" not in functions:
        name, function = next(iter(functions.items()))
        raise ConfigError(name, None, where(function), f"expected {WANTED} beside it")
    return Script(**functions)


class Script:
    """The four functions as one handler."""

    def __init__(
        self,
        model_fn: Callable[..., Any],
        input_fn: Callable[..., Any] | None = None,
        predict_fn: Callable[..., Any] | None = None,
        output_fn: Callable[..., Any] | None = None,
    ) -> None:
        self._model_fn = model_fn
        self._input_fn = input_fn or read
        self._predict_fn = predict_fn or predict
        self._output_fn = output_fn or write
        self._model: Any = None
        self._loaded = False

    def handle(self, inputs: Input) -> Output | None:
        """Answer one request, or load the model where there is no content."""
        if not self._loaded:
            self._model = self._model_fn(inputs.get_property("model_dir"))
            self._loaded = True
        if inputs.is_empty():
            return None
        content_type = inputs.get_property("Content-Type") or _JSON
        accept = inputs.get_property("Accept") or ""
        if accept in _ANY:
            accept = _JSON
        data = self._input_fn(bytes(inputs.get_as_bytes() or b""), content_type)
        answer = self._output_fn(self._predict_fn(data, self._model), accept)
        if isinstance(answer, Output):
            return answer
        if isinstance(answer, tuple) and len(answer) == 2:  # the body and its content type
            answer, accept = answer
        output = Output()
        output.add_property("content-type", str(accept))
        output.add(answer if isinstance(answer, str | bytes | bytearray) else encode_json(answer))
        return output


def read(request_body: bytes, content_type: str) -> Any:
    """A body as JSON, CSV (rows of numbers, or of texts), an array, text or bytes, by its type."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _JSON:
        return json.loads(request_body)
    if kind == "text/csv":
        rows = list(csv.reader(io.StringIO(request_body.decode())))
        try:
            return [[float(cell) for cell in row] for row in rows if row]
        except ValueError:
            return [row for row in rows if row]
    if kind == "application/x-npy":
        import numpy

        return numpy.load(io.BytesIO(request_body), allow_pickle=False)
    return request_body.decode() if kind.startswith("text/") else request_body


def predict(input_data: Any, model: Any) -> Any:
    """Ask the model: its `predict`, else the model itself."""
    method = getattr(model, "predict", None)
    return method(input_data) if callable(method) else model(input_data)


def write(prediction: Any, accept: str) -> tuple[bytes, str]:
    """A prediction as JSON, whatever was asked for."""
    return encode_json(prediction), _JSON
