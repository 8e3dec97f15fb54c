"""What a call of the adapters' API asks for: its parameters become an `Adapter`, on either front.

The API stands on the port of inference, so adapters are read only from folders that the front was
given: a client can't make it open any other path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lmi.core import Adapter, RequestError

_MAX_NAME = 256  # characters


class BadAdapterCall(RequestError):
    """A parameter of the call is missing or wrong."""

    code = 400


def wanted_adapter(words: Mapping[str, str], folders: Sequence[Path]) -> Adapter:
    """The adapter that a registration means. words: name, src, preload and pin, as texts.

    folders: where adapters may be read from; a relative src is looked for in each. Raises
    BadAdapterCall.
    """
    name = words.get("name", "")
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or "/" in name:
        raise BadAdapterCall(
            f"name: expected 1 to {_MAX_NAME} printable characters without a slash"
        )
    preload, pin = _flag(words, "preload", True), _flag(words, "pin", False)
    if pin and not preload:
        raise BadAdapterCall("pin=true: expected preload to be true with it")
    return Adapter(name, _source(words.get("src", ""), folders), preload, pin)


def changed_adapter(known: Adapter, words: Mapping[str, str], folders: Sequence[Path]) -> Adapter:
    """The adapter that an update means: what it leaves out stays. Raises BadAdapterCall."""
    source = known.source.resolve()
    if "src" in words and _source(words["src"], [*folders, source.parent]) != source:
        raise BadAdapterCall("src: it can't change; delete the adapter and register it anew")
    preload, pin = _flag(words, "preload", known.preload), _flag(words, "pin", known.pin)
    if pin and not preload:
        raise BadAdapterCall("pin=true: expected preload to be true with it")
    if known.pin and not pin:
        raise BadAdapterCall("pin=false: a pinned adapter stays so; delete it and register it anew")
    return Adapter(known.name, known.source, preload, pin)


def _flag(words: Mapping[str, str], name: str, default: bool) -> bool:
    value = words.get(name, str(default)).lower()
    if value not in ("true", "false"):
        raise BadAdapterCall(f"{name}={value[:40]!r}: expected true or false")
    return value == "true"


def _source(text: str, folders: Sequence[Path]) -> Path:
    """The adapter's folder, inside one of `folders`."""
    if not text or "\0" in text:
        raise BadAdapterCall("src: expected a folder, as a path or a file: URL")
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("no-url:")
    if url.scheme not in ("", "file") or url.netloc not in ("", "localhost"):
        raise BadAdapterCall(
            f"src={text[:80]!r}: expected a local folder, as a path or a file: URL"
        )
    given = Path(unquote(url.path) if url.scheme else text)
    roots = [folder.resolve() for folder in folders]
    for root in roots:
        path = (root / given).resolve()
        if path.is_relative_to(root) and path.is_dir():
            return path
    shown = ", ".join(map(str, roots)) or "none was given"
    raise BadAdapterCall(f"src={text[:80]!r}: expected a folder that exists inside: {shown}")
