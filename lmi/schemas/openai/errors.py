"""Errors as OpenAI's clients know them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import orjson

from lmi.core import (
    BadPayload,
    DeadlineExceeded,
    EngineError,
    LmiError,
    OutOfMemory,
    Overloaded,
    RequestError,
    TooLong,
    UnknownAdapter,
)
from lmi.schemas.errors import status_of


class UnknownModel(RequestError):
    """The request names a model that does not stand here, and no adapter of that name does."""

    code = 404


_CODES: dict[type[LmiError], str] = {
    TooLong: "context_length_exceeded",
    UnknownModel: "model_not_found",
    UnknownAdapter: "model_not_found",
    Overloaded: "rate_limit_exceeded",
}

# What the engines call the fields that OpenAI calls otherwise.
_PARAMS = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "prompt_top": "logprobs",
    "prompt_logprobs": "echo",
}


def openai_status(error: LmiError) -> int:
    """The status on OpenAI's routes: a bad body is 400, a failure of the engine 500."""
    if isinstance(error, BadPayload | TooLong):
        return 400
    if isinstance(error, EngineError) and not isinstance(error, OutOfMemory):
        return 500
    return status_of(error)


def openai_error(error: LmiError, status: int, prompt: str = "prompt") -> bytes:
    """The error object. prompt: what the dialect calls what the engines call `inputs`."""
    field = error.field if isinstance(error, RequestError) else None
    if field is not None and field.split("[")[0] == "inputs":
        field = prompt
    return orjson.dumps(
        {
            "error": {
                "message": str(error),
                "type": _kind(error, status),
                "param": None if field is None else _PARAMS.get(field, field),
                "code": _CODES.get(type(error)),
            }
        }
    )


def _kind(error: LmiError, status: int) -> str:
    if isinstance(error, DeadlineExceeded):
        return "timeout_error"
    if isinstance(error, Overloaded):
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
