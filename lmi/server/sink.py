"""Where an answer's bytes leave: an ASGI `send` that is driven without a task of its own.

A step of the engine brings tokens for every live request. To wake a task for each of them would
cost more than to write the bytes, so the session's turn writes them itself: the `send` coroutine is
run at once, and nearly always ends at once, because the server only copies to its socket's buffer.
Where it does suspend (the client reads slowly), a task takes it over, and what comes meanwhile is
kept and sent together afterwards. The rule to keep: at most one `send` is under way at any time.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from starlette.types import Message, Send

from lmi.core import Head, LmiError
from lmi.server.errors import Failure
from lmi.server.headers import Headers, head_headers, safe
from lmi.server.reason import SetReason

_STATUSES = range(200, 600)
_NO_STATUS = 500  # a handler's code that is none of HTTP's
_BODILESS = (204, 304)  # HTTP forbids them a body
_USUAL = Head().reason


class HttpSink:
    """One answer. `write` and `fail` come from the session, on the event loop's thread."""

    __slots__ = (
        "_ended",
        "_failure",
        "_head",
        "_headers",
        "_queue",
        "_reason",
        "_send",
        "_sending",
        "_started",
        "_tasks",
        "status",
    )

    def __init__(
        self,
        send: Send,
        headers: Headers,
        failure: Callable[[LmiError], Failure],
        ended: Callable[[], None],
        tasks: set[asyncio.Task[None]],
        reason: SetReason | None = None,
    ) -> None:
        """ended: called once, when the last byte was handed over. tasks: keeps suspended sends.
        reason: sets the reason phrase."""
        self._send = send
        self._headers = headers
        self._head = Head()
        self._failure = failure
        self._ended = ended
        self._tasks = tasks
        self._reason = reason
        self._started = False
        self._queue: deque[Message] | None = None  # while a send is suspended
        self._sending: asyncio.Task[None] | None = None
        self.status = 0

    def describe(self, head: Head) -> None:
        self._head = head

    def write(self, data: bytes, last: bool) -> None:
        if not self._started:
            self._start_described(len(data) if last else None)
        if self.status in _BODILESS:
            data = b""
        self._put({"type": "http.response.body", "body": data, "more_body": not last})
        if last:
            self._ended()

    def fail(self, error: LmiError) -> None:
        found = self._failure(error)
        json = (b"content-type", b"application/json")
        self._start(found.status, [json, *found.headers], len(found.body))
        self._put({"type": "http.response.body", "body": found.body, "more_body": False})
        self._ended()

    def _start_described(self, length: int | None) -> None:
        head = self._head
        status = head.status if head.status in _STATUSES else _NO_STATUS
        if self._reason is not None and head.reason != _USUAL:
            self._reason(safe(head.reason))
        self._start(status, head_headers(head), None if status in _BODILESS else length)

    def _start(self, status: int, own: Headers, length: int | None) -> None:
        self._started = True
        self.status = status
        headers = [*own, *self._headers]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self._put({"type": "http.response.start", "status": status, "headers": headers})

    def _put(self, message: Message) -> None:
        if self._queue is not None:
            self._queue.append(message)
            return
        sending = self._send(message)
        waits_for = _begin(sending)
        if waits_for is not None:
            self._queue = deque()
            task = asyncio.get_running_loop().create_task(self._finish(sending, waits_for))
            self._sending = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def sent(self) -> None:
        """Wait until everything that was written has been handed over."""
        while self._queue is not None and self._sending is not None:
            await self._sending

    async def _finish(self, sending: Any, waits_for: Any) -> None:
        await _resume(sending, waits_for)
        while self._queue:
            await self._send(_joined(self._queue))
        self._queue = None


def _joined(queue: deque[Message]) -> Message:
    """The next message; bodies that wait behind each other become one."""
    first = queue.popleft()
    if first["type"] != "http.response.body" or not queue:
        return first
    parts, more = [first["body"]], first["more_body"]
    while queue:
        message = queue.popleft()
        parts.append(message["body"])
        more = message["more_body"]
    return {"type": "http.response.body", "body": b"".join(parts), "more_body": more}


def _begin(work: Any) -> Any:
    """Run a coroutine up to its end or its first suspension; what it then waits for, else None."""
    try:
        return work.send(None)
    except StopIteration:
        return None


@types.coroutine
def _resume(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that has been begun, inside the task that awaits this."""
    try:
        yield waits_for
    except BaseException:
        work.close()
        raise
    yield from work
