"""A worker's front and a fake Java at the two ends of a socket, in one event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lmi.core import LmiError
from lmi.djl import Arguments, Width
from lmi.djl.front import Front
from lmi.engines.echo import EchoConfig, EchoEngine
from lmi.session import Loaded, Served, Session, SessionConfig
from tests.support.djl_bytes import FIELD_LIMIT
from tests.support.djl_client import FakeJava

ROLLING = {"rolling_batch": "auto"}
ASYNC = {"async_mode": "true"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Host:
    """Serves what it was given, or raises it. seen: Java's initialise map."""

    def __init__(self, served: Served | LmiError | None) -> None:
        self.served = served
        self.seen: Mapping[str, str] | None = None

    def check(self) -> None:
        """Nothing can be wrong."""

    async def initialise(self, properties: Mapping[str, str]) -> Served | None:
        self.seen = properties
        if isinstance(self.served, LmiError):
            raise self.served
        return self.served


@dataclass
class Pair:
    """The two ends. running: gives the worker's exit code. ended: how often Java was ended."""

    java: FakeJava
    running: asyncio.Task[int]
    host: Host
    ended: list[None]


Drive = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    """`async with drive(served, options) as pair`, the model initialised unless told otherwise."""

    @asynccontextmanager
    async def start(
        served: Served | LmiError | None,
        options: Mapping[str, str] | None = None,
        *,
        width: Width = Width.LONG,
        limit: int = FIELD_LIMIT,
        initialise: bool = True,
        arguments: Arguments | None = None,
    ) -> AsyncIterator[Pair]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        host, ended = Host(served), list[None]()
        given = arguments or Arguments(tmp_path, str(tmp_path / "sock"))
        front = Front(replace(given, field_limit=limit), host, lambda: ended.append(None))
        java = FakeJava(width, limit)
        await loop.connect_accepted_socket(lambda: front.channel, ours)
        await loop.connect_accepted_socket(lambda: java, theirs)
        running = asyncio.create_task(front.run())
        try:
            if initialise:
                reply = await java.initialise(options)
                assert (reply.code, reply.message) == (204, "No content")
            yield Pair(java, running, host, ended)
        finally:
            java.close()
            async with asyncio.timeout(20):
                await running

    return start


Echoing = Callable[..., AbstractAsyncContextManager[Session]]


@pytest.fixture
def echoing() -> Echoing:
    """`async with echoing(config) as session`: a session over the echo engine, ready."""

    @asynccontextmanager
    async def start(
        config: EchoConfig = EchoConfig(),  # noqa: B008 - frozen
        session: SessionConfig = SessionConfig("m"),  # noqa: B008 - frozen
    ) -> AsyncIterator[Session]:
        made = Session(session, lambda progress: Loaded(EchoEngine(config)))
        made.start()
        await made.ready()
        try:
            yield made
        finally:
            await made.close()

    return start


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the conditions are of many kinds
            await asyncio.sleep(0)
