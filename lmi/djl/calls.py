"""Messages of Java's become calls. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lmi.core import Call
from lmi.djl.wire import BATCH_SIZE, TRACKING_ID, Message, ProtocolError

_PART: Final = re.compile(r"batch_(\d{1,6})[._](.+)", re.DOTALL)
_OWN: Final = frozenset({TRACKING_ID, BATCH_SIZE})

HANDLE: Final = "handle"


def call(message: Message) -> Call:
    """A message that is one request."""
    properties = lower(message.properties)
    for name in _OWN:
        properties.pop(name, None)
    return Call(message.content, properties, function=properties.get("handler", HANDLE))


def lower(properties: Mapping[str, str]) -> dict[str, str]:
    """By lower-case name: HTTP's names are alike whatever their case."""
    return {name.lower(): value for name, value in properties.items()}


def batch_size(message: Message) -> int | None:
    """How many requests a message says that it holds; None where it is no batch."""
    text = message.properties.get(BATCH_SIZE)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError(f"batch_size={text!r}: expected a whole number")
    return int(text)


def parts(message: Message, size: int, first: int = 0) -> list[Call]:
    """The requests from position `first` on of a batch of `size`; each has its own properties.

    Those before it are known already, and have one item each. Raises ProtocolError for what belongs
    to no request, or to a known one.
    """
    function = message.properties.get("handler", HANDLE)
    content: list[list[tuple[str | None, bytes]]] = [[] for _ in range(first, size)]
    properties: list[dict[str, str]] = [{} for _ in range(first, size)]
    for key, value in message.content[first:]:
        place, name = _split(key or "", first, size)
        content[place].append((name, value))
    for key, text in message.properties.items():
        if key.startswith("batch_") and key != BATCH_SIZE:
            place, name = _split(key, first, size)
            properties[place][name.lower()] = text
    return [
        Call(tuple(items), own, function=own.get("handler", function))
        for items, own in zip(content, properties, strict=True)
    ]


def _split(key: str, first: int, size: int) -> tuple[int, str]:
    found = _PART.fullmatch(key)
    if found is None or not first <= int(found[1]) < size:
        raise ProtocolError(f"{key!r} where requests {first} to {size - 1} were expected")
    return int(found[1]) - first, found[2]
