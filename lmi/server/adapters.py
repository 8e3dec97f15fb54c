"""The adapters' API: LoRA adapters of a model, listed, registered, replaced and removed."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lmi.core import Adapter
from lmi.server.config import ServerConfig
from lmi.server.errors import (
    AdapterExists,
    AdapterNotFound,
    ModelNameNeeded,
    ModelNotFound,
    pretty,
)
from lmi.session import (
    Adapters,
    BadAdapterCall,
    LoraNotEnabled,
    Served,
    changed_adapter,
    wanted_adapter,
)

ALIAS_HEADER = "x-amzn-sagemaker-adapter-alias"


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
        taken = host.adapters()
        adapter = wanted_adapter(request.query_params, config.adapter_folders)
        if adapter.name in sessions:
            raise BadAdapterCall(f"name={adapter.name!r}: a model has this name")
        if adapter.name in taken:
            raise AdapterExists(f"Adapter {adapter.name} is already registered.")
        await host.register_adapter(adapter)
        return _status(request, adapter.name, "registered")

    @router.post("/adapters/{name}/update")
    @router.post("/models/{model}/adapters/{name}/update")
    async def update(request: Request, name: str, model: str | None = None) -> Response:
        host = _host(sessions, model)
        known = _registered(host, name)
        folders = config.adapter_folders
        await host.register_adapter(changed_adapter(known, request.query_params, folders))
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
