"""Dynamic batches: several requests in one message, answered together, in their order.

Code, message and headers are shared by all. So a request that fails among others that do not has
its error as its body, under the code 200; only where all fail does the code say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lmi.core import Call, EngineError, Head, LmiError
from lmi.djl import outcome
from lmi.djl.encode import Encoder
from lmi.schemas import error_body
from lmi.session import Accepted, Served

_JSON = [("Content-Type", "application/json")]


class _Part:
    """A sink that keeps its answer."""

    def __init__(self) -> None:
        self.head = Head()
        self.accepted: Accepted | None = None
        self.error: LmiError | None = None
        self.done = asyncio.Event()
        self._data = bytearray()

    def describe(self, head: Head) -> None:
        self.head = head

    def write(self, data: bytes, last: bool) -> None:
        self._data += data
        if last:
            self.done.set()

    def fail(self, error: LmiError) -> None:
        self.error = error
        self.done.set()

    def limit(self, size: int) -> None:
        """Make an error of an answer that Java could not take."""
        if self.error is None and len(self._data) > size:
            self.error = EngineError(
                f"the answer has {len(self._data)} bytes and the model server takes at most "
                f"{size}; raise MAX_NETTY_BUFFER_SIZE, or ask for it outside of a batch"
            )

    @property
    def body(self) -> bytes:
        return bytes(self._data) if self.error is None else error_body(self.error)

    @property
    def failed(self) -> bool:
        return self.error is not None or self.head.status >= 300


class BatchLoop:
    """Answers one batch; the next one waits."""

    def __init__(self, served: Served, encoder: Encoder) -> None:
        self._served = served
        self._encoder = encoder
        self._parts: list[_Part] = []

    async def answer(self, calls: Sequence[Call]) -> bytes:
        """The reply to all of them."""
        self._parts = parts = [_Part() for _ in calls]
        for part, call in zip(parts, calls, strict=True):
            try:
                part.accepted = self._served.accept(call, part)
            except LmiError as error:
                part.fail(error)
        for part in parts:
            await part.done.wait()
            part.limit(self._encoder.field_limit)
        self._parts = []
        return self._reply(parts)

    def forget(self) -> None:
        """Cancel what runs: Java is gone."""
        for part in self._parts:
            if part.accepted is not None:
                part.accepted.cancel()

    def _reply(self, parts: Sequence[_Part]) -> bytes:
        good = next((part for part in parts if not part.failed), None)
        if good is not None:
            content = [(f"batch_{place:03}.data", part.body) for place, part in enumerate(parts)]
            return self._encoder.reply(200, "OK", outcome.headers(good.head), content)
        # Java gives all of them this one answer.
        first = parts[0]
        if first.error is None:
            code, message, headers = (
                first.head.status,
                outcome.reason(first.head),
                outcome.headers(first.head),
            )
        else:
            code = outcome.status(first.error)
            message = outcome.phrase(code)
            headers = _JSON + outcome.error_headers(first.error)
        return self._encoder.reply(code, message, headers, [("data", first.body)])
