"""The adapters' API: LoRA adapters of a model, listed, registered, replaced and removed.

It stands on the port of inference, as the reference's does, so it reads adapters only from folders
that the server was given: a client can't make it open any other path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lmi.core import Adapter, RequestError
from lmi.server.config import ServerConfig
from lmi.server.errors import (
    AdapterExists,
    AdapterNotFound,
    ModelNameNeeded,
    ModelNotFound,
    pretty,
)
from lmi.session import Adapters, LoraNotEnabled, Served

ALIAS_HEADER = "x-amzn-sagemaker-adapter-alias"

_MAX_NAME = 256  # characters


class BadAdapterCall(RequestError):
    """A parameter of the call is missing or wrong."""

    code = 400


def adapter_routes(sessions: Mapping[str, Served], config: ServerConfig) -> APIRouter:
    """The routes, with and without a model's name; without one there must be a single model."""
    router = APIRouter()

    @router.get("/adapters")
    @router.get("/models/{model}/adapters")
    async def every(model: str | None = None) -> Response:
        found = _host(sessions, model).adapters().values()
        return _json({"adapters": [_shown(adapter) for adapter in found]})

    @router.get("/adapters/{name}")
    @router.get("/models/{model}/adapters/{name}")
    async def one(name: str, model: str | None = None) -> Response:
        return _json(_shown(_registered(_host(sessions, model), name)))

    @router.post("/adapters")
    @router.post("/models/{model}/adapters")
    async def register(request: Request, model: str | None = None) -> Response:
        host = _host(sessions, model)
        query = request.query_params
        name = _name(query, sessions)
        if name in host.adapters():
            raise AdapterExists(f"Adapter {name} is already registered.")
        await host.register_adapter(_adapter(name, query, config, None))
        return _status(request, name, "registered")

    @router.post("/adapters/{name}/update")
    @router.post("/models/{model}/adapters/{name}/update")
    async def update(request: Request, name: str, model: str | None = None) -> Response:
        host = _host(sessions, model)
        known = _registered(host, name)
        await host.register_adapter(_adapter(name, request.query_params, config, known))
        return _status(request, name, "updated")

    @router.delete("/adapters/{name}")
    @router.delete("/models/{model}/adapters/{name}")
    async def remove(request: Request, name: str, model: str | None = None) -> Response:
        host = _host(sessions, model)
        _registered(host, name)
        await host.unregister_adapter(name)
        return _status(request, name, "unregistered")

    return router


def _host(sessions: Mapping[str, Served], model: str | None) -> Adapters:
    if model is None:
        if len(sessions) != 1:
            raise ModelNameNeeded("Several models stand here: use /models/{model}/adapters.")
        model = next(iter(sessions))
    session = sessions.get(model)
    if session is None:
        raise ModelNotFound(f"Model not found: {model}")
    if not isinstance(session, Adapters):
        raise LoraNotEnabled("LoRA is not enabled.")
    return session


def _registered(host: Adapters, name: str) -> Adapter:
    found = host.adapters().get(name)
    if found is None:
        raise AdapterNotFound(f"Adapter {name} is not registered.")
    return found


def _name(query: Mapping[str, str], sessions: Mapping[str, Served]) -> str:
    name = query.get("name", "")
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or "/" in name:
        raise BadAdapterCall(
            f"name: expected 1 to {_MAX_NAME} printable characters without a slash"
        )
    if name in sessions:
        raise BadAdapterCall(f"name={name!r}: a model has this name")
    return name


def _adapter(
    name: str, query: Mapping[str, str], config: ServerConfig, known: Adapter | None
) -> Adapter:
    """What a call asks for. known: what is registered now, for what the call leaves out."""
    preload = _flag(query, "preload", known is None or known.preload)
    pin = _flag(query, "pin", known is not None and known.pin)
    if pin and not preload:
        raise BadAdapterCall("pin=true: expected preload to be true with it")
    if known is not None and known.pin and not pin:
        raise BadAdapterCall("pin=false: a pinned adapter stays so; delete it and register it anew")
    if known is None:
        return Adapter(name, _source(query.get("src", ""), config), preload, pin)
    if "src" in query and _source(query["src"], config) != known.source.resolve():
        raise BadAdapterCall("src: it can't change; delete the adapter and register it anew")
    return Adapter(name, known.source, preload, pin)


def _flag(query: Mapping[str, str], name: str, default: bool) -> bool:
    value = query.get(name, str(default)).lower()
    if value not in ("true", "false"):
        raise BadAdapterCall(f"{name}={value[:40]!r}: expected true or false")
    return value == "true"


def _source(text: str, config: ServerConfig) -> Path:
    """The adapter's folder, inside one of those that the server was given."""
    if not text:
        raise BadAdapterCall("src: expected a folder, as a path or a file: URL")
    url = urlsplit(text)
    if url.scheme not in ("", "file") or (
        url.scheme == "file" and url.netloc not in ("", "localhost")
    ):
        raise BadAdapterCall(
            f"src={text[:80]!r}: expected a local folder, as a path or a file: URL"
        )
    if "\0" in text:
        raise BadAdapterCall("src: expected a path")
    given = Path(unquote(url.path) if url.scheme else text)
    folders = [folder.resolve() for folder in config.adapter_folders]
    for folder in folders:
        path = (folder / given).resolve()
        if path.is_relative_to(folder) and path.is_dir():
            return path
    shown = ", ".join(map(str, folders)) or "none was given"
    raise BadAdapterCall(f"src={text[:80]!r}: expected a folder that exists inside: {shown}")


def _shown(adapter: Adapter) -> dict[str, object]:
    return {
        "name": adapter.name,
        "src": str(adapter.source),
        "preload": adapter.preload,
        "pin": adapter.pin,
    }


def _status(request: Request, name: str, done: str) -> Response:
    shown = request.headers.get(ALIAS_HEADER) or name
    return _json({"status": f"Adapter {shown} {done}"})


def _json(value: object) -> Response:
    return Response(pretty(value), media_type="application/json")
