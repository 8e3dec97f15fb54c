"""Bytes to a validated body, or a BadPayload that says what is wrong with them."""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from lmi.schemas.body import LmiBody
from lmi.schemas.config import Form
from lmi.schemas.errors import bad_payload, from_validation

# Whatever else a client says it sends is tried as JSON: `curl -d` says that it sends a form.
_NOT_JSON = ("multipart/", "image/", "audio/", "video/", "tensor/", "text/csv")


def validate(form: Form, body: bytes, content_type: str) -> LmiBody:
    """Parse a body once. A text/plain body is the prompt itself."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/plain":
        body = _prompt_as_body(form, body)
    elif kind.startswith(_NOT_JSON):
        raise bad_payload(
            form, f"Content-Type {kind!r}: expected application/json.", "content-type"
        )
    try:
        return LmiBody.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(form, error) from None


def _prompt_as_body(form: Form, body: bytes) -> bytes:
    try:
        return orjson.dumps({"inputs": body.decode()})
    except UnicodeDecodeError as error:
        raise bad_payload(form, f"The body is not UTF-8: {error.reason}.") from None
