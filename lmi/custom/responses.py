"""A reply that passes through a user's output formatter as OpenAI's objects, whole or by chunk.

That is what formatters for the asynchronous vLLM handler know. They see the answer as an object
that is a dictionary and has attributes; of a stream, each chunk as the text of its event, or as an
object where their parameter is annotated as a dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from lmi.core import Delta, LmiError
from lmi.custom.api.payload import encode_json
from lmi.schemas import Reply, error_body

_DATA: Final = "data: "
_END: Final = "[DONE]"
_DEFAULT_TOKENS: Final = 30  # of LMI's dialect; completions have another

# LMI's parameters by the names that completions have for them.
_RENAMED: Final = {
    "max_new_tokens": "max_tokens",
    "stop_sequences": "stop",
    "ignore_eos_token": "ignore_eos",
    "min_new_tokens": "min_tokens",
    "truncate": "truncate_prompt_tokens",
    "return_full_text": "echo",
    "top_n_tokens": "logprobs",
}


class Response(dict[str, Any]):
    """An object of OpenAI's: fields as items and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the response has no field {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value  # published formatters change the response that they return

    def model_dump(self, **named: Any) -> dict[str, Any]:
        """As a plain dictionary; pydantic's arguments mean nothing here."""
        plain: dict[str, Any] = json.loads(json.dumps(self))
        return plain

    def model_dump_json(self, **named: Any) -> str:
        """As JSON; pydantic's arguments mean nothing here."""
        return json.dumps(self, ensure_ascii=False)


class ResponseReply:
    """See `lmi.schemas.Reply`: another reply, formatted."""

    def __init__(
        self,
        inner: Reply,
        streamed: bool,
        wants_mapping: bool,
        format: Callable[[tuple[Any, ...]], Any],
    ) -> None:
        """format: calls the user's function with these arguments; raises LmiError where it does."""
        self._inner = inner
        self._streamed = streamed
        self._wants_mapping = wants_mapping
        self._format = format
        self._released = False
        self._failed = False

    @property
    def done(self) -> bool:
        return self._failed or self._inner.done

    def feed(self, delta: Delta, position: int = 0) -> bytes:
        if self._failed:
            return b""  # of a generation that goes on after its formatter failed
        data = self._inner.feed(delta, position)
        if not data:
            return b""
        if not self._streamed:
            return self._whole(data)
        lines: list[bytes] = []
        try:
            for line in self._chunks(data):
                lines.append(line)  # noqa: PERF402 those before an error count
        except LmiError as error:  # the formatter's
            self._released = self._released or any(lines)
            lines.append(self.fail(error))
        self._released = self._released or any(lines)
        return b"".join(lines)

    def fail(self, error: LmiError) -> bytes:
        if not self._released:
            raise error
        self._failed = True
        return error_body(error) + b"\n"

    def _whole(self, data: bytes) -> bytes:
        response = json.loads(data, object_hook=Response)
        return _line(self._format((response,)))

    def _chunks(self, data: bytes) -> Iterator[bytes]:
        for raw in data.decode().splitlines():
            text = raw.removeprefix(_DATA)
            if not text:
                continue
            if not self._wants_mapping:
                yield _line(self._format((f"{_DATA}{text}\n\n",)))
            elif text != _END:
                yield _line(self._format((json.loads(text, object_hook=Response),)))


def as_completion(body: bytes) -> bytes:
    """A body of LMI's dialect as one of OpenAI's completions; any other as it is."""
    try:
        fields = json.loads(body)
    except ValueError:
        return body
    if not isinstance(fields, dict) or "inputs" not in fields or "prompt" in fields:
        return body
    parameters = fields.pop("parameters", None)
    if parameters is not None and not isinstance(parameters, dict):
        return body
    made: dict[str, Any] = {"prompt": fields.pop("inputs"), "max_tokens": _DEFAULT_TOKENS}
    given: dict[str, Any] = parameters or {}
    for name, value in given.items():
        if name == "do_sample":
            if value is False:
                made["temperature"] = 0.0
        elif name == "details":
            if value:
                made.setdefault("logprobs", 0)
        else:
            made[_RENAMED.get(name, name)] = value
    return encode_json({**fields, **made})


def _line(made: Any) -> bytes:
    """What a formatter returned, as a line; nothing for None."""
    if made is None:
        return b""
    dump = getattr(made, "model_dump_json", None)
    if callable(dump) and not isinstance(made, dict):
        made = dump()
    data = made.encode() if isinstance(made, str) else encode_json(made)
    return bytes(data) + b"\n"
