"""Failed requests as HTTP: the status, the headers it needs, and the JSON that explains it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from lmi.core import LmiError, Overloaded, RequestError, Unavailable
from lmi.schemas import UnknownModel, error_body
from lmi.schemas.errors import status_of
from lmi.server.body import BodyTooLarge, BodyTooSlow
from lmi.server.config import ServerConfig
from lmi.server.headers import Headers


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer to a request that failed before its first byte."""

    status: int
    body: bytes
    headers: Headers


class NotFound(RequestError):
    """No such path."""

    code = 404


class ModelNotFound(RequestError):
    """No such model."""

    code = 404


class MethodNotAllowed(RequestError):
    """The path exists, for another method."""

    code = 405


class ModelNameNeeded(RequestError):
    """Several models stand here and the request names none."""

    code = 400


class AdapterNotFound(RequestError):
    """No adapter of this name is registered."""

    code = 404


class AdapterExists(RequestError):
    """The adapter's name is taken; `update` replaces."""

    code = 409


class HandlerNamed(RequestError):
    """The request's headers choose a handler: that is the model's to choose."""

    code = 400


_BAD_REQUEST = "BadRequestException"

# The reference's names of its exceptions, which clients read in `type`.
_TYPES: dict[type[LmiError], str] = {
    NotFound: "ResourceNotFoundException",
    ModelNotFound: "ModelNotFoundException",
    MethodNotAllowed: "MethodNotAllowedException",
    AdapterNotFound: "ResourceNotFoundException",
    AdapterExists: "ConflictException",
    UnknownModel: "ModelNotFoundException",
    Overloaded: "WlmCapacityException",
    Unavailable: "WlmException",
    BodyTooLarge: "PayloadTooLargeException",
    BodyTooSlow: "RequestTimeoutException",
}


def failure(error: LmiError, config: ServerConfig) -> Failure:
    """How `error` is answered: the server's own errors in its form, the others in the dialect's."""
    status = status_of(error)
    if isinstance(error, Overloaded):
        status = config.throttle_status
    elif isinstance(error, Unavailable):
        status = config.unavailable_status
    headers = failure_headers(error)
    kind = _TYPES.get(type(error)) or (_BAD_REQUEST if status == 400 else None)
    if kind is None:
        return Failure(status, error_body(error), headers)
    return Failure(status, pretty({"code": status, "type": kind, "message": str(error)}), headers)


def failure_headers(error: LmiError) -> Headers:
    """What stands in the head of an answer to a failed request."""
    headers: Headers = []
    if isinstance(error, RequestError) and error.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
    if isinstance(error, BodyTooSlow):
        # Its rest may never come. That of a body that is too large does: it is read and dropped,
        # because a client that is still sending would not see the answer of a closed connection.
        headers.append((b"connection", b"close"))
    return headers


def pretty(value: object) -> bytes:
    """The server's own JSON: indented by two, with a line end, as the reference's."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
