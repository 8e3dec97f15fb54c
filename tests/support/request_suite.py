"""Requests that every front answers alike: the same status, the same body.

One list for the embedded server and for each of the DJL model server's modes. Everything is greedy
and of a fixed length, so that an answer is a fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"


def _lmi(inputs: object, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": {"max_new_tokens": 8, **parameters}}


def _chat(**more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Say it"}],
        "max_tokens": 6,
        "temperature": 0,
        **more,
    }


@dataclass(frozen=True, slots=True)
class Case:
    """name: a word for the test's id. body: JSON's object, or text as it is.

    chat: needs a model with a chat template. stamped: the answer has an id and a time in it, which
    differ from request to request. refused: the answer is an error.
    """

    name: str
    body: object
    properties: Mapping[str, str] = field(default_factory=dict)
    chat: bool = False
    stamped: bool = False
    refused: bool = False


CASES = (
    Case("plain", _lmi("Return the name of")),
    Case("one-token", _lmi("Return the name of", max_new_tokens=1)),
    Case("unicode", _lmi("naïve 你好 👋 \u2028 end", max_new_tokens=12)),
    Case("details", _lmi("Return the name", details=True)),
    Case("prompt-details", _lmi("Return the name", details=True, decoder_input_details=True)),
    Case("full-text", _lmi("Return the name", return_full_text=True)),
    Case("stop", _lmi("one two three four five", stop_sequences=["three"], max_new_tokens=40)),
    Case("list", _lmi(["Return the", "name of"])),
    Case("streamed", {**_lmi("Return the name of"), "stream": True}),
    Case("streamed-details", {**_lmi("Return the name", details=True), "stream": True}),
    Case("unknown-parameter", _lmi("Return the name", temprature=0.5)),
    Case(
        "completion", {"prompt": "Return the name", "max_tokens": 6, "temperature": 0}, stamped=True
    ),
    Case(
        "streamed-completion",
        {"prompt": "Return the name", "max_tokens": 6, "temperature": 0, "stream": True},
        stamped=True,
    ),
    Case("chat", _chat(), chat=True, stamped=True),
    Case("streamed-chat", _chat(stream=True), chat=True, stamped=True),
    Case("no-json", "{", refused=True),
    Case("no-body", "", refused=True),
    Case("no-inputs", {"parameters": {}}, refused=True),
    Case("wrong-type", {"inputs": 3}, refused=True),
    Case("out-of-range", _lmi("x", top_p=7), refused=True),
    Case("zero-tokens", _lmi("x", max_new_tokens=0), refused=True),
    Case("too-long", _lmi("word " * 20_000), refused=True),
    Case("unknown-adapter", {**_lmi("x"), "adapters": "nobody"}, refused=True),
)
