"""Connections that put load on a server, and what they measure.

Raw asyncio protocols: a received piece of a stream costs one clock call, one count of its lines and
two appends, so that the generator stays far from being the bottleneck. `Measured` is emptied when
the warm-up is over and read when the time is up: what it holds belongs to the time between.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from array import array
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from benchmarks.answer_reader import AnswerReader, NotHttp

CONNECT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 0.1  # after a failed connect, so that a dead server is not hammered
_TAIL: Final = 1024  # bytes of an answer's end: more than its usage and what follows it
MOST_FAILURES: Final = 100  # to connect, one after another: then the server is given up


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path: str = "/invocations"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, ready to send. tokens: as many as a right answer has.

    proof: what the end of a right answer holds; None where its lines are its tokens.
    """

    data: bytes
    tokens: int
    streamed: bool
    proof: re.Pattern[bytes] | None = None


def http_request(target: Target, body: bytes) -> bytes:
    """A POST of a JSON body on a connection that is kept open."""
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _seconds() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Measured:
    """Sums over all connections; times in seconds.

    first: to the first byte of a body. whole: to an answer's end. each: between the tokens of an
    answer, its mean. gaps: between two pieces of a streamed answer, whatever they hold. pieces: of
    streamed answers: how often the socket had something that ends a line. tokens: of those answers
    whose lines are their tokens, as they come; else of whole answers, at their end.
    """

    first: array[float] = field(default_factory=_seconds)
    whole: array[float] = field(default_factory=_seconds)
    each: array[float] = field(default_factory=_seconds)
    gaps: array[float] = field(default_factory=_seconds)
    tokens: int = 0
    pieces: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Begin anew, in place: connections keep writing here."""
        for times in (self.first, self.whole, self.each, self.gaps):
            del times[:]
        self.tokens = self.pieces = 0
        self.errors.clear()


class Connection(asyncio.Protocol):
    """Sends the next request when an answer is complete, for as long as there is one."""

    def __init__(self, asks: Iterator[Ask], measured: Measured) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_more = True  # False once there was no request left to send
        self._asks = asks
        self._measured = measured
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._ask: Ask | None = None
        self._sent = 0.0
        self._first = 0.0
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._next()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        reader = self._reader
        before = reader.lines
        try:
            reader.feed(data)
        except NotHttp as error:
            self._fail(str(error))
            return
        ask = self._ask
        if ask is not None and ask.streamed and reader.lines > before:
            self._measured.pieces += 1
            if ask.proof is None:
                self._measured.tokens += reader.lines - before
            if self._last:
                self._measured.gaps.append(now - self._last)
            self._last = now
        if not self._first and reader.size:
            self._first = now
            self._measured.first.append(now - self._sent)
        if reader.done:
            self._end(now)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ask is not None:
            self._measured.errors["connection lost"] += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def leave(self) -> None:
        """Close at once, also in the middle of an answer."""
        self._ask = None
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        assert self._transport is not None
        self._ask = next(self._asks, None)
        if self._ask is None:
            self.has_more = False
            self._transport.close()
            return
        self._reader = AnswerReader(tail=0 if self._ask.proof is None else _TAIL)
        self._first = self._last = 0.0
        self._sent = time.perf_counter()
        self._transport.write(self._ask.data)

    def _end(self, now: float) -> None:
        ask, reader, measured = self._ask, self._reader, self._measured
        if ask is None:
            return
        if reader.status != 200:
            self._fail(f"status {reader.status}")
        elif ask.proof is not None and not ask.proof.search(reader.end):
            self._fail(f"an answer does not end with a usage of {ask.tokens} tokens")
        elif ask.proof is None and ask.streamed and reader.lines != ask.tokens:
            self._fail(f"{reader.lines} tokens instead of {ask.tokens}")
        else:
            measured.whole.append(now - self._sent)
            if ask.streamed and ask.tokens > 1:
                measured.each.append((now - self._first) / (ask.tokens - 1))
            if ask.proof is not None or not ask.streamed:
                measured.tokens += ask.tokens
            self._next()

    def _fail(self, what: str) -> None:
        """A connection that saw an error is given up; its place is taken by a new one."""
        self._measured.errors[what] += 1
        self.leave()


class Load:
    """Keeps requests going until `stop`."""

    def __init__(self, target: Target, asks: Iterator[Ask]) -> None:
        self.measured = Measured()
        self._target = target
        self._asks = asks
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._stopped = False
        self._failures = 0  # to connect, since the last success

    def closed_loop(self, concurrency: int) -> None:
        """So many clients, each with one request at a time."""
        for _ in range(concurrency):
            self._spawn(self._client())

    def open_loop(self, rate: float, seed: int = 0) -> None:
        """Requests at random times (Poisson), `rate` a second, each on its own connection."""
        self._spawn(self._arrivals(rate, random.Random(seed)))

    async def until_over(self) -> None:
        """Wait until there is no request left to send and every answer has come."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Leave everything as it is and disconnect."""
        self._stopped = True
        for connection in list(self._open):
            connection.leave()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _client(self) -> None:
        while not self._stopped and await self._connection(self._asks):
            pass

    async def _arrivals(self, rate: float, rng: random.Random) -> None:
        due = time.perf_counter()
        for ask in self._asks:
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._spawn(self._connection(iter([ask])))

    async def _connection(self, asks: Iterator[Ask]) -> bool:
        """One connection's life; whether there is a reason for another."""
        connection = Connection(asks, self.measured)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(
                    lambda: connection, self._target.host, self._target.port
                )
        except OSError as error:  # TimeoutError is one
            self.measured.errors[f"no connection: {type(error).__name__}"] += 1
            self._failures += 1
            await asyncio.sleep(RETRY_SECONDS)
            return self._failures < MOST_FAILURES
        self._failures = 0
        self._open.add(connection)
        await connection.closed
        self._open.discard(connection)
        return connection.has_more
