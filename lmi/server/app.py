"""The ASGI application: inference and /ping are answered directly, everything else by FastAPI.

FastAPI builds several objects and awaits several layers for each request; that is nothing for a
page and too much for the path of generation. The OpenAPI document describes both kinds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lmi.core import LmiError, Route
from lmi.server.adapters import adapter_routes
from lmi.server.config import ServerConfig
from lmi.server.errors import MethodNotAllowed, NotFound, failure, pretty
from lmi.server.headers import read_headers, reply_headers
from lmi.server.inference import Inference
from lmi.server.metrics import CONTENT_TYPE, Metrics
from lmi.server.models import describe, listing
from lmi.server.openapi import PAGE, document
from lmi.server.ping import ping
from lmi.server.v1 import model_card, model_list, route_of, v1_failure
from lmi.session import Served


def build_app(sessions: Mapping[str, Served], config: ServerConfig) -> ASGIApp:
    """The server's application. sessions: by model name; their life is the caller's business."""
    return Front(sessions, config)


class Front:
    """Sends a request to the part that answers it."""

    def __init__(self, sessions: Mapping[str, Served], config: ServerConfig) -> None:
        self._sessions = sessions
        self._config = config
        self._inference = Inference(sessions, config)
        self._pages = pages(sessions, config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        found, model, route = inference_target(scope["path"])
        if found and scope["method"] == "OPTIONS":
            await self._answer(scope, send, 200, b"{}")
        elif found:
            await self._inference.serve(scope, receive, send, model, route)
        elif scope["path"] == "/ping":
            await self._answer(scope, send, *ping(self._sessions))
        else:
            await self._pages(scope, receive, send)

    async def _answer(self, scope: Scope, send: Send, status: int, body: bytes) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *reply_headers(read_headers(scope), self._config.request_id_header),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def inference_target(path: str) -> tuple[bool, str | None, Route]:
    """Whether a path is for inference, the model that it names, and what it asks for."""
    if path == "/invocations":
        return True, None, Route.INVOCATIONS
    match path.split("/"):
        case ["", "predictions", model] | ["", "predictions", model, _] if model:
            return True, model, Route.INVOCATIONS
        case ["", "models", model, "invoke"] if model:
            return True, model, Route.INVOCATIONS
    route = route_of(path)
    return route is not None, None, route or Route.INVOCATIONS


def pages(sessions: Mapping[str, Served], config: ServerConfig) -> FastAPI:
    """The rest: models, metrics, documents, and JSON for what doesn't exist."""
    app = FastAPI(title="lmi", docs_url=None, redoc_url=None, openapi_url=None)
    metrics = Metrics(sessions)
    began = int(time.time())

    @app.middleware("http")
    async def contract_headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        for name, value in reply_headers(dict(request.headers), config.request_id_header):
            response.headers[name.decode()] = value.decode()
        return response

    app.include_router(adapter_routes(sessions, config))

    @app.get("/v1/models")
    async def v1_models() -> JSONResponse:
        return JSONResponse(model_list(sessions, began))

    @app.get("/v1/models/{name:path}")
    async def v1_model(name: str) -> JSONResponse:
        return JSONResponse(model_card(sessions, began, name))

    @app.get("/models")
    async def models() -> Response:
        return Response(pretty(listing(sessions)), media_type="application/json")

    @app.get("/models/{model}")
    @app.get("/models/{model}/{version}")
    async def model(model: str) -> Response:
        return Response(pretty(describe(sessions, model)), media_type="application/json")

    @app.get("/metrics")
    @app.get("/server/metrics")
    async def metrics_page() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(document(sessions))

    @app.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.exception_handler(LmiError)
    async def refused(request: Request, error: LmiError) -> Response:
        return _response(request, error)

    @app.exception_handler(HTTPException)
    async def absent(request: Request, error: HTTPException) -> Response:
        if error.status_code == MethodNotAllowed.code:
            return _response(request, MethodNotAllowed(f"{request.method} is not allowed here"))
        return _response(request, NotFound(f"Requested resource is not found: {request.url.path}"))

    def _response(request: Request, error: LmiError) -> Response:
        v1 = request.url.path.startswith("/v1/")
        found = v1_failure(error, config) if v1 else failure(error, config)
        return Response(found.body, status_code=found.status, media_type="application/json")

    return app
