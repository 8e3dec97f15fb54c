"""One client of the soak: asks, judges the answer, or leaves; then asks again."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from benchmarks.answer_reader import AnswerReader, NotHttp
from benchmarks.soak_requests import Ask, Leaving, random_ask

ANSWER_SECONDS: Final = 120.0  # longer, and the request counts as forgotten
MOST_VIOLATIONS: Final = 50  # kept; each is counted
READ_BYTES: Final = 65536
STREAM_BYTES: Final = 3000  # a leaver has read at most so much
WAIT_SECONDS: Final = 0.2  # a leaver waits at most so long


@dataclass(slots=True)
class Tally:
    """What all clients together saw. refused: by status. left: may have been accepted or not."""

    asked: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    left: int = 0
    violations: list[str] = field(default_factory=list)
    violation_count: int = 0

    def violation(self, what: str) -> None:
        self.violation_count += 1
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(what)


class Client:
    """Keeps one connection while it can. stop: set when no more requests shall begin."""

    def __init__(self, port: int, name: str, rng: random.Random, tally: Tally) -> None:
        self._port = port
        self._name = name
        self._rng = rng
        self._tally = tally
        self._asked = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop; every request that was begun is ended."""
        while not stop.is_set():
            await self.ask_once(random_ask(self._rng))
        await self.leave()

    async def ask_once(self, ask: Ask) -> None:
        """One request to its end; whatever is wrong with it goes to the tally."""
        self._tally.asked[ask.kind] += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._one(ask)
        except TimeoutError:
            self._tally.violation(f"{ask.kind}: no answer in {ANSWER_SECONDS:g} s")
            await self.leave()
        except (OSError, NotHttp) as error:
            self._tally.violation(f"{ask.kind}: {error!r} for {ask.body[:200]!r}")
            await self.leave()

    async def _one(self, ask: Ask) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._asked += 1
        request_id = f"{self._name}-{self._asked}"
        head = (
            f"POST /invocations HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
            f"x-request-id: {request_id}\r\nContent-Length: {len(ask.body)}\r\n\r\n"
        ).encode()
        if ask.leaving is not None:
            await self._ask_and_leave(ask, head)
            return
        self._writer.write(head + ask.body)
        await self._writer.drain()
        self._judge(ask, await self._answer(), request_id)

    async def _answer(self) -> AnswerReader:
        answer = AnswerReader(keep=True)
        while not answer.done:
            answer.feed(await self._received())
        if answer.closes:
            await self.leave()
        return answer

    async def _received(self) -> bytes:
        assert self._reader is not None
        data = await self._reader.read(READ_BYTES)
        if not data:
            raise ConnectionError("closed in the middle of an answer")
        return data

    def _judge(self, ask: Ask, answer: AnswerReader, request_id: str) -> None:
        if f"x-request-id: {request_id}".encode() not in answer.headers:
            self._tally.violation(f"{request_id} got somebody else's answer: {answer.headers!r}")
        if answer.beyond:
            self._tally.violation(f"{request_id}: {answer.beyond} bytes after its answer")
        if answer.status == 200:
            self._tally.answered += 1
            if not ask.acceptable:
                self._tally.violation(f"{ask.kind} was accepted: {ask.body[:200]!r}")
                return
            try:
                wrong = ask.right(answer.body)
            except (ValueError, LookupError, TypeError) as error:
                wrong = repr(error)
            if wrong is not None:
                self._tally.violation(f"{ask.kind}: {wrong} for {ask.body[:300]!r}")
            return
        self._tally.refused[answer.status] += 1
        right = ask.refusable and 400 <= answer.status < 500 and _is_json(answer.body)
        if not right:
            what = f"{ask.kind}: status {answer.status}, {answer.body[:300]!r}"
            self._tally.violation(f"{what} for {ask.body[:300]!r}")

    async def _ask_and_leave(self, ask: Ask, head: bytes) -> None:
        assert self._writer is not None
        assert self._reader is not None
        self._tally.left += 1
        if ask.leaving is Leaving.IN_THE_BODY:
            self._writer.write(head + ask.body[: self._rng.randrange(len(ask.body))])
            await self._writer.drain()
        else:
            self._writer.write(head + ask.body)
            await self._writer.drain()
        if ask.leaving is Leaving.WAITING:
            await asyncio.sleep(self._rng.uniform(0, WAIT_SECONDS))
        if ask.leaving is Leaving.STREAMING:
            wanted = self._rng.randrange(1, STREAM_BYTES)
            answer = AnswerReader()
            while answer.size < wanted and not answer.done:
                answer.feed(await self._received())
        await self.leave()

    async def leave(self) -> None:
        """Close the connection at once, whatever is on its way."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
