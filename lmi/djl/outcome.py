"""Errors and heads as Java is told of them: a code, one line, and HTTP headers."""

from __future__ import annotations

import math
from http import HTTPStatus

import orjson

from lmi.core import EngineError, Head, LmiError, RequestError
from lmi.schemas.errors import status_of

NO_CONTENT = "No content"
_SPELLED = {"content-type": "Content-Type", "retry-after": "Retry-After"}


class NotText(EngineError):
    """An answer with bytes that are no text, in a mode that carries text alone."""


def error_headers(error: LmiError) -> list[tuple[str, str]]:
    """When to try again, where the error knows."""
    if isinstance(error, RequestError) and error.retry_after is not None:
        return [("Retry-After", str(math.ceil(error.retry_after)))]
    return []


def reason(head: Head) -> str:
    """The message of a reply: an unnamed failure gets its standard name."""
    if head.status >= 300 and head.reason == "OK":
        return phrase(head.status)
    return head.reason


def phrase(status: int) -> str:
    """HTTP's name of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def headers(head: Head) -> list[tuple[str, str]]:
    """A head's headers, spelled as the reference does."""
    return [(_SPELLED.get(name, name), value) for name, value in head.headers]


def error_text(head: Head, body: bytes) -> str:
    """What went wrong, from an answer whose status says that something did.

    A map has no room for the body itself: Java makes one of the code and this text.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = body.decode("utf-8", "replace")
    if isinstance(found, dict):
        found = found.get("error", found.get("message"))
    return found if isinstance(found, str) and found.strip() else reason(head)


def status(error: LmiError) -> int:
    """The HTTP status of an error."""
    return status_of(error)
