"""Adapters through Java: handlers of these names are asked to register, replace or remove one.

In async mode Java answers its client before we answer it, and keeps what we refused: a failure is
in our log, and in the answer to the first request that names the adapter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from lmi.core import Adapter, Call, LmiError, RequestError, UnknownAdapter
from lmi.session import Adapters, LoraNotEnabled, Served

log = logging.getLogger("lmi.djl")

REGISTER: Final = "register_adapter"
UPDATE: Final = "update_adapter"
UNREGISTER: Final = "unregister_adapter"
HANDLERS: Final = frozenset({REGISTER, UPDATE, UNREGISTER})


class BadAdapterCall(RequestError):
    """A parameter of the call is missing or wrong."""

    code = 400


async def administer(call: Call, served: Served, folders: Sequence[Path]) -> str:
    """Do what the call's handler says; returns the line that says so. Raises LmiError.

    folders: where adapters may be read from.
    """
    # Parameters of the call are items, Java's own words are properties, and these count.
    words = {key: value.decode("utf-8", "replace") for key, value in call.content if key}
    words |= {key: call.properties[key] for key in ("name", "src") if key in call.properties}
    name = words.get("name", "")
    try:
        if not name:
            raise BadAdapterCall("name: expected the adapter's name")
        done = await _do(call.function, name, words, served, folders)
    except LmiError as error:
        log.error("%s %s: %s", call.function, name, error)
        raise
    line = f"Adapter {call.properties.get('alias') or name} {done}"
    log.info("%s", line)
    return line


async def _do(
    function: str, name: str, words: Mapping[str, str], served: Served, folders: Sequence[Path]
) -> str:
    if not isinstance(served, Adapters):
        raise LoraNotEnabled("LoRA is not enabled.")
    known = served.adapters().get(name)
    if function == REGISTER:
        await served.register_adapter(_wanted(name, words, folders))
        return "registered"
    if known is None:
        raise UnknownAdapter(f"Adapter {name} is not registered.")
    if function == UNREGISTER:
        await served.unregister_adapter(name)
        return "unregistered"
    await served.register_adapter(_changed(known, words, folders))
    return "updated"


def _wanted(name: str, words: Mapping[str, str], folders: Sequence[Path]) -> Adapter:
    preload, pin = _flag(words, "preload", True), _flag(words, "pin", False)
    if pin and not preload:
        raise BadAdapterCall("pin=true: expected preload to be true with it")
    return Adapter(name, _source(words.get("src", ""), folders), preload, pin)


def _changed(known: Adapter, words: Mapping[str, str], folders: Sequence[Path]) -> Adapter:
    words = {"preload": str(known.preload), "pin": str(known.pin), "src": str(known.source)} | dict(
        words
    )
    wanted = _wanted(known.name, words, [*folders, known.source.parent])
    if wanted.source != known.source.resolve():
        raise BadAdapterCall("src: it can't change; delete the adapter and register it anew")
    if known.pin and not wanted.pin:
        raise BadAdapterCall("pin=false: a pinned adapter stays so; delete it and register it anew")
    return wanted


def _flag(words: Mapping[str, str], name: str, default: bool) -> bool:
    value = words.get(name, str(default)).lower()
    if value not in ("true", "false"):
        raise BadAdapterCall(f"{name}={value[:40]!r}: expected true or false")
    return value == "true"


def _source(text: str, folders: Sequence[Path]) -> Path:
    """The adapter's folder, inside one of `folders`."""
    url = urlsplit(text)
    local = url.scheme == "" or (url.scheme == "file" and url.netloc in ("", "localhost"))
    if text and local and "\0" not in text:
        given = Path(unquote(url.path) if url.scheme else text)
        for folder in folders:
            path = (folder / given).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_dir():
                return path
    shown = ", ".join(map(str, folders))
    raise BadAdapterCall(f"src={text[:80]!r}: expected a folder that exists inside: {shown}")
