"""The ASGI application: inference and /ping are answered directly, everything else by FastAPI.

FastAPI builds several objects and awaits several layers for each request; that is nothing for a
page and too much for the path of generation. The OpenAPI document describes both kinds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lmi.core import RequestError
from lmi.server.config import ServerConfig
from lmi.server.errors import MethodNotAllowed, NotFound, failure, pretty
from lmi.server.headers import read_headers, reply_headers
from lmi.server.inference import Inference
from lmi.server.metrics import CONTENT_TYPE, Metrics
from lmi.server.models import describe, listing
from lmi.server.openapi import PAGE, document
from lmi.server.ping import ping
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
        found, model = inference_target(scope["path"])
        if found and scope["method"] == "OPTIONS":
            await self._answer(scope, send, 200, b"{}")
        elif found:
            await self._inference.serve(scope, receive, send, model)
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


def inference_target(path: str) -> tuple[bool, str | None]:
    """Whether a path is for inference, and the model that it names."""
    if path == "/invocations":
        return True, None
    parts = path.split("/")
    match parts:
        case ["", "predictions", model] | ["", "predictions", model, _] if model:
            return True, model
        case ["", "models", model, "invoke"] if model:
            return True, model
    return False, None


def pages(sessions: Mapping[str, Served], config: ServerConfig) -> FastAPI:
    """The rest: models, metrics, documents, and JSON for what doesn't exist."""
    app = FastAPI(title="lmi", docs_url=None, redoc_url=None, openapi_url=None)
    metrics = Metrics(sessions)

    @app.middleware("http")
    async def contract_headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        for name, value in reply_headers(dict(request.headers), config.request_id_header):
            response.headers[name.decode()] = value.decode()
        return response

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

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return _response(error)

    @app.exception_handler(HTTPException)
    async def absent(request: Request, error: HTTPException) -> Response:
        if error.status_code == MethodNotAllowed.code:
            return _response(MethodNotAllowed(f"{request.method} is not allowed here"))
        return _response(NotFound(f"Requested resource is not found: {request.url.path}"))

    def _response(error: RequestError) -> Response:
        found = failure(error, config)
        return Response(found.body, status_code=found.status, media_type="application/json")

    return app
