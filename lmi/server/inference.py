"""The inference endpoints as raw ASGI: a body in, the session's bytes out.

The request's task reads the body, opens the request and then only waits for the client to leave:
the answer is written by the session's turns (see `sink`), and a finished answer ends the wait too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from lmi.core import Call, LmiError, Route
from lmi.server.body import ClientLeft, read_body
from lmi.server.config import ServerConfig
from lmi.server.content import items
from lmi.server.errors import (
    HandlerNamed,
    MethodNotAllowed,
    ModelNameNeeded,
    ModelNotFound,
    failure,
)
from lmi.server.headers import read_headers, reply_headers
from lmi.server.reason import reason_setter
from lmi.server.sink import HttpSink
from lmi.server.v1 import session_named, v1_failure
from lmi.session import Served

log = logging.getLogger("lmi.server")
HANDLER_HEADER = "handler"

access = logging.getLogger("lmi.access")


class Inference:
    """Serves a generation request for a model by name, or for the only one."""

    def __init__(self, sessions: Mapping[str, Served], config: ServerConfig) -> None:
        self._sessions = sessions
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        model: str | None,
        route: Route = Route.INVOCATIONS,
    ) -> None:
        """Answer one request. model: the name in the path, or None."""
        own = route is Route.INVOCATIONS
        failed = failure if own else partial(v1_failure, route=route)
        began = time.monotonic()
        headers = read_headers(scope)
        sink = HttpSink(
            send,
            reply_headers(headers, self._config.request_id_header),
            failure=partial(failed, config=self._config),
            ended=lambda: self._log(scope, sink.status, began),
            tasks=self._tasks,
            reason=reason_setter(scope),
        )
        session: Served | None = None
        try:
            if HANDLER_HEADER in headers:
                raise HandlerNamed(f"header {HANDLER_HEADER!r}: the model chooses its handler")
            if own:
                session = self._session(scope, headers, model)
            elif scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['method']} is not allowed here: expected POST")
            body = await read_body(
                receive, headers, self._config.max_request_size, self._config.body_timeout
            )
            if session is None:
                session = session_named(self._sessions, body)
            query = scope["query_string"].decode("latin-1")
            live = session.accept(Call(items(query, headers, body), headers, route), sink)
            del body
        except ClientLeft as error:
            self._log(scope, error.code, began)
            return
        except LmiError as error:
            if session is not None:
                session.measures.refused[failed(error, config=self._config).status] += 1
            sink.fail(error)
            await sink.sent()
            return
        try:
            # Says "disconnect" when the client leaves, and also when the answer is complete.
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            if live.open:
                live.cancel()
                self._log(scope, ClientLeft.code, began)

    def _session(self, scope: Scope, headers: Mapping[str, str], model: str | None) -> Served:
        if model is None:
            query = parse_qs(scope["query_string"].decode("latin-1"))
            model = query.get("model_name", [headers.get("model_name", "")])[-1]
        if not model:
            if len(self._sessions) != 1:
                raise ModelNameNeeded("Parameter model_name is required.")
            return next(iter(self._sessions.values()))
        session = self._sessions.get(model)
        if session is None:
            raise ModelNotFound(f"Model not found: {model}")
        return session

    def _log(self, scope: Scope, status: int, began: float) -> None:
        if self._config.access_log:
            client = scope.get("client") or ("-", 0)
            access.info(
                '%s "%s %s HTTP/%s" %d %.0f',
                client[0],
                scope["method"],
                scope["path"],
                scope.get("http_version", "1.1"),
                status,
                1000 * (time.monotonic() - began),
            )
