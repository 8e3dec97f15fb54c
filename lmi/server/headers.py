"""Headers in, headers out: what every answer of the contract carries."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from starlette.types import Scope

from lmi.core import Head

Headers = list[tuple[bytes, bytes]]

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"

_NO_CACHE: Headers = [
    (b"pragma", b"no-cache"),
    (b"cache-control", b"no-cache; no-store, must-revalidate, private"),
    (b"expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
]

_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_MAX_ID = 256  # characters of a client's own request id


def read_headers(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; of a repeated one the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def reply_headers(headers: Mapping[str, str], request_id_header: str) -> Headers:
    """The headers of every answer to a request that had `headers`; its content type comes later."""
    own = headers.get(request_id_header, "")
    request_id = own if 0 < len(own) <= _MAX_ID else str(uuid.uuid4())
    found: Headers = [
        (b"x-request-id", safe(request_id)),
        *_NO_CACHE,
    ]
    attributes = headers.get(CUSTOM_ATTRIBUTES)
    if attributes is not None:
        found.append((CUSTOM_ATTRIBUTES.encode(), safe(attributes)))
    return found


def head_headers(head: Head) -> Headers:
    """An answer's own headers, but for those that the connection decides and those that are none.

    A handler's head may hold anything; one bad name must not cost the client its answer.
    """
    return [
        (name.encode("ascii"), safe(value))
        for name, value in head.headers
        if name not in _OF_THE_CONNECTION and _NAME.fullmatch(name)
    ]


def safe(text: str) -> bytes:
    """Text that came from outside as a header's value: what a header can't hold becomes a `?`."""
    return "".join([char if " " <= char <= "~" else "?" for char in text]).encode()
