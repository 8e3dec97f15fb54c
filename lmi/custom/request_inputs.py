"""Between a request's body and the RequestInput that formatters know."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

from lmi.core import Call
from lmi.custom.api.payload import encode_json
from lmi.custom.api.request_io import RequestInput, TextInput

_ids: Final = itertools.count(1)


def body_of(made: Any) -> bytes:
    """What an input formatter returned as a body of LMI's dialect, or the dictionary as it is.

    Raises TypeError for anything else.
    """
    if isinstance(made, dict):
        return encode_json(made)
    if not isinstance(made, RequestInput):
        raise TypeError(
            f"the input formatter returned {type(made).__name__}; expected a dict or a RequestInput"
        )
    parameters = dict(made.parameters or made.server_parameters)
    stream = parameters.pop("stream", False)
    if isinstance(made.output_formatter, str):
        parameters["output_formatter"] = made.output_formatter
    body: dict[str, Any] = {
        "inputs": getattr(made, "input_text", None),
        "parameters": parameters,
        "stream": bool(stream),
    }
    adapters = getattr(made, "adapters", None)
    if isinstance(adapters, str | list) and adapters:
        body["adapters"] = adapters
    return encode_json(body)


def from_call(call: Call) -> TextInput:
    """A request that was parsed already, as an output formatter wants to see it."""
    made = TextInput(request_id=next(_ids))
    try:
        body = json.loads(call.body)
    except ValueError:  # text, for which the body is the prompt
        body = {"inputs": call.body.decode(errors="replace")}
    made.input_text = body.get("inputs", body.get("prompt"))
    made.parameters = {**(body.get("parameters") or {}), "stream": bool(body.get("stream"))}
    made.server_parameters = dict(made.parameters)
    made.adapters = body.get("adapters")
    return made
