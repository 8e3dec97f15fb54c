"""A server in this process: over an ASGI transport, or with uvicorn on a port of loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from lmi.core import Engine
from lmi.engines.echo import EchoConfig, EchoEngine
from lmi.schemas import SchemaConfig
from lmi.server import ServerConfig, bind, build_app, serve
from lmi.session import Loaded, Progress, Session, SessionConfig
from lmi.text import ChatTemplate

SLOW_ECHO = EchoConfig(token_seconds=0.005)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Served:
    """A server with one model, `m`, and what a test needs of it."""

    client: httpx.AsyncClient
    session: Session
    engines: list[Engine]
    port: int = 0
    serving: asyncio.Task[None] | None = None


@dataclass
class Plan:
    """What to serve."""

    make: Callable[[], Engine] = lambda: EchoEngine(EchoConfig())
    server: ServerConfig = field(default_factory=lambda: ServerConfig(port=0))
    session: SessionConfig = field(
        default_factory=lambda: SessionConfig("m", restart_backoff=0.001)
    )
    chat: ChatTemplate | None = None
    wait: bool = True


Serve = Callable[..., AbstractAsyncContextManager[Served]]


def _session(plan: Plan) -> tuple[Session, list[Engine]]:
    engines: list[Engine] = []

    def load(progress: Progress) -> Loaded:
        engines.append(plan.make())
        return Loaded(engines[-1], plan.chat)

    return Session(plan.session, load), engines


@asynccontextmanager
async def in_process(plan: Plan) -> AsyncIterator[Served]:
    """No socket: httpx calls the application."""
    session, engines = _session(plan)
    app = build_app({"m": session}, plan.server)
    session.start()
    if plan.wait:
        await session.ready()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Served(client, session, engines)
    await session.close()


@asynccontextmanager
async def on_a_port(plan: Plan) -> AsyncIterator[Served]:
    """A real uvicorn on a port of loopback."""
    session, engines = _session(plan)
    sessions = {"m": session}
    app = build_app(sessions, plan.server)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(app, plan.server, sessions, bind(plan.server), listening=port.set_result)
    )
    session.start()
    if plan.wait:
        await session.ready()
    url = f"http://127.0.0.1:{await port}"
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield Served(client, session, engines, port.result(), serving)
    if not serving.done():
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def schema(**options: object) -> SessionConfig:
    return SessionConfig("m", schema=SchemaConfig(**options))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 the conditions are of many kinds
            await asyncio.sleep(0.001)
