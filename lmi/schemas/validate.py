"""Bytes to a validated body, or a BadPayload that says what is wrong with them."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from lmi.schemas.body import LmiBody
from lmi.schemas.config import Form
from lmi.schemas.errors import Voice, bad_payload, from_validation

Body = TypeVar("Body", bound=BaseModel)

# Whatever else a client says it sends is tried as JSON: `curl -d` says that it sends a form.
_NOT_JSON = ("multipart/", "image/", "audio/", "video/", "tensor/", "text/csv")


def validate(form: Form, body: bytes, content_type: str) -> LmiBody:
    """Parse a body once. A text/plain body is the prompt itself."""
    if _media_type(content_type) == "text/plain":
        body = _prompt_as_body(form, body)
    return read(LmiBody, form, body, content_type, "inputs")


def read(kind: type[Body], voice: Voice, body: bytes, content_type: str, needed: str) -> Body:
    """A JSON body as its model, or BadPayload. needed: the field that it can't do without."""
    media = _media_type(content_type)
    if media.startswith(_NOT_JSON):
        raise bad_payload(
            voice, f"Content-Type {media!r}: expected application/json.", "content-type"
        )
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(voice, error, needed) from None


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _prompt_as_body(form: Form, body: bytes) -> bytes:
    try:
        return orjson.dumps({"inputs": body.decode()})
    except UnicodeDecodeError as error:
        raise bad_payload(form, f"The body is not UTF-8: {error.reason}.") from None
