"""The peer that shows what the transport alone costs: a bare Starlette stream on uvicorn.

It answers each request with the same lines that the embedded server sends for the echo engine, made
in advance, one chunk per token, and gives way between them as a real stream must. It parses the
body with json.loads and does nothing else: no engine, no admission, no metrics, no disconnects.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

LINE = b'{"token": {"id": 6845379, "text": "abc", "log_prob": null}}\n'


async def lines(tokens: int) -> AsyncIterator[bytes]:
    for _ in range(tokens):
        yield LINE
        await asyncio.sleep(0)


async def invocations(request: Request) -> Response:
    body = json.loads(await request.body())
    tokens = body["parameters"]["max_new_tokens"]
    if body["stream"]:
        return StreamingResponse(lines(tokens), media_type="application/jsonlines")
    return JSONResponse({"generated_text": "abc" * tokens})


async def ping(request: Request) -> Response:
    return JSONResponse({"status": "Healthy"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = Starlette(
        routes=[Route("/invocations", invocations, methods=["POST"]), Route("/ping", ping)]
    )
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=parser.parse_args().port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
