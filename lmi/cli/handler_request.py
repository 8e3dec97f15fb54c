"""A request for a handler, read from a file as people write it by hand."""

from __future__ import annotations

import json
import mimetypes
import sys
from pathlib import Path
from typing import Any, Final

from lmi.core import Call, ConfigError

_JSON: Final = "application/json"
_KEYS: Final = frozenset({"headers", "body", "content", "function"})
_WANT: Final = (
    "expected a body, or an object of 'headers', 'function', and 'body' or 'content' "
    '(an object of texts, or of {"file": "x.png"} beside the request)'
)


def read_request(source: Path | None) -> Call:
    """The request in a file, from standard input for `-`, an empty JSON object for None.

    A JSON object with `body` or `content` describes the whole request; anything else is the body
    itself, of a type that the file's name tells. Raises ConfigError.
    """
    if source is None:
        return _call(b"{}", _JSON)
    try:
        data = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
    except OSError as error:
        raise ConfigError("REQUEST", str(source), "the command line", str(error)) from error
    kind = _JSON if str(source) == "-" else mimetypes.guess_type(source.name)[0]
    described = _described(data) if kind == _JSON else None
    if described is None:
        return _call(data, kind or "application/octet-stream")
    return _whole(described, source)


def _described(data: bytes) -> dict[str, Any] | None:
    """The object that describes a request; None for a body."""
    try:
        fields = json.loads(data)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not fields.keys() & {"body", "content"}:
        return None
    return fields if fields.keys() <= _KEYS else None


def _whole(fields: dict[str, Any], source: Path) -> Call:
    headers = fields.get("headers", {})
    content = fields.get("content")
    if not isinstance(headers, dict) or not isinstance(content, dict | None):
        raise ConfigError("REQUEST", str(source), "the command line", _WANT)
    properties = {str(name).lower(): str(value) for name, value in headers.items()}
    function = str(fields.get("function", "handle"))
    if content is not None:
        items = tuple((str(name), _item(value, source)) for name, value in content.items())
        return Call(items, properties, function=function)
    body = fields["body"]
    properties.setdefault("content-type", "text/plain" if isinstance(body, str) else _JSON)
    return Call((("data", _octets(body)),), properties, function=function)


def _item(value: Any, source: Path) -> bytes:
    if not isinstance(value, dict) or value.keys() != {"file"}:
        return _octets(value)
    path = source.parent / str(value["file"])
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("content", str(path), str(source), str(error)) from error


def _octets(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _call(body: bytes, content_type: str) -> Call:
    return Call((("data", body),), {"content-type": content_type})
