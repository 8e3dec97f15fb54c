"""A session over an engine in the test's hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from lmi.core import Head, LmiError
from lmi.schemas import ParsedRequest
from lmi.session import Loaded, Progress, Session, SessionConfig
from tests.support.scripted import ScriptedEngine

QUICK = SessionConfig("m", restart_backoff=0.001, predict_timeout=30.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Kept:
    """A sink that keeps what it gets. `ended` is set with the last write or the failure."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.error: LmiError | None = None
        self.ends = 0
        self.ended = asyncio.Event()

    def describe(self, head: Head) -> None:
        self.head = head

    def write(self, data: bytes, last: bool) -> None:
        assert not self.ends
        self.writes.append(data)
        if last:
            self._end()

    def fail(self, error: LmiError) -> None:
        assert not self.writes
        assert not self.ends
        self.error = error
        self._end()

    def _end(self) -> None:
        self.ends += 1
        self.ended.set()

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)


class Engines:
    """Makes the engines that a session loads; each answers its warm-up by itself."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.made: list[ScriptedEngine] = []
        self.before: Callable[[], None] = lambda: None

    def load(self, progress: Progress) -> Loaded:
        progress("loading", 1, 4)
        self.before()
        engine = ScriptedEngine(**self.options)
        engine.answer_first = "warm"
        self.made.append(engine)
        return Loaded(engine)

    @property
    def engine(self) -> ScriptedEngine:
        """The newest."""
        return self.made[-1]


def request(
    session: Session, text: object = "x", stream: bool = False, **more: Any
) -> ParsedRequest:
    body = {"inputs": text, "stream": stream, "parameters": more}
    return session.parse(json.dumps(body).encode(), {})


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 the conditions are of many kinds
            await asyncio.sleep(0)


Started = Callable[..., AbstractAsyncContextManager[tuple[Session, Engines]]]


@pytest.fixture
def started() -> Started:
    @asynccontextmanager
    async def start(
        config: SessionConfig = QUICK, **options: Any
    ) -> AsyncIterator[tuple[Session, Engines]]:
        engines = Engines(**options)
        session = Session(config, engines.load)
        session.start()
        await session.ready()
        try:
            yield session, engines
        finally:
            await session.close()
            assert [engine.closed for engine in engines.made] == [1] * len(engines.made)

    return start
