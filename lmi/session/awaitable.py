"""Sinks for callers that would rather await: the whole answer, or its chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from lmi.core import Head, LmiError
from lmi.session.live import Live, Sink


class _Queue:
    """A sink that keeps the chunks for a reader. An error comes after the chunks before it."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[tuple[bytes, bool, LmiError | None]] = asyncio.Queue()

    def describe(self, head: Head) -> None:
        """Its reader wants the bytes alone."""

    def write(self, data: bytes, last: bool) -> None:
        self._chunks.put_nowait((data, last, None))

    def fail(self, error: LmiError) -> None:
        self._chunks.put_nowait((b"", True, error))

    async def read(self) -> AsyncGenerator[bytes, None]:
        last = False
        while not last:
            data, last, error = await self._chunks.get()
            if error is not None:
                raise error
            yield data


async def stream(start: Callable[[Sink], Live]) -> AsyncGenerator[bytes, None]:
    """The chunks of the request that `start` opens; leaving the iterator early cancels it.

    Raises what the opening raises, and the request's error where no byte was released.
    """
    sink = _Queue()
    live = start(sink)
    try:
        async for data in sink.read():
            yield data
    finally:
        live.cancel()


async def collect(start: Callable[[Sink], Live]) -> bytes:
    """The whole answer of the request that `start` opens; raises as `stream` does."""
    return b"".join([data async for data in stream(start)])
