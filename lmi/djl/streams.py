"""Async mode: requests by tracking id, answered whenever there is something, in any order.

What one turn of the engine releases for all requests goes out in one write. When Java reads slowly,
the socket says so, and text gathers in its request's answer meanwhile: fewer and larger pieces, and
no more memory than the text itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from lmi.core import EngineError, LmiError
from lmi.djl.answer import TextAnswer
from lmi.djl.calls import call
from lmi.djl.channel import Channel
from lmi.djl.encode import Encoder
from lmi.djl.wire import TRACKING_ID, Message
from lmi.session import Served

log = logging.getLogger("lmi.djl")


class StreamLoop:
    """The requests of one connection."""

    def __init__(self, served: Served, encoder: Encoder, channel: Channel) -> None:
        self._served = served
        self._encoder = encoder
        self._channel = channel
        self._ids: dict[TextAnswer, str] = {}  # of those that live
        self._dirty: dict[TextAnswer, None] = {}
        self._tasks: set[asyncio.Task[str]] = set()
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        channel.on_writable(self._flush)

    def __len__(self) -> int:
        return len(self._ids)

    def open(self, message: Message) -> None:
        """Take a request in; whatever happens, it gets its answer."""
        answer = self._new(message)
        try:
            answer.accepted = self._served.accept(call(message), answer)
        except LmiError as error:
            answer.fail(error)

    def run(self, message: Message, work: Coroutine[Any, Any, str]) -> None:
        """Answer a request with what `work` returns, or with the LmiError that it raises."""
        answer = self._new(message)
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._worked(task, answer))

    def forget(self) -> None:
        """Cancel everything: Java is gone."""
        for answer in self._ids:
            answer.cancel()
        for task in self._tasks:
            task.cancel()
        self._ids.clear()
        self._dirty.clear()

    def flush(self) -> None:
        """Send what there is, however slowly Java reads."""
        self._write()

    def _new(self, message: Message) -> TextAnswer:
        tracking_id = message.properties[TRACKING_ID]
        # All replies but the first begin alike.
        answer = TextAnswer(self._tell, prefix=self._encoder.async_head(tracking_id))
        self._ids[answer] = tracking_id
        return answer

    def _worked(self, task: asyncio.Task[str], answer: TextAnswer) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            answer.write(task.result().encode(), last=True)
        elif isinstance(error, LmiError):
            answer.fail(error)
        else:
            log.error("a request of the model server's own failed", exc_info=error)
            answer.fail(EngineError(f"it failed ({type(error).__name__})"))

    def _tell(self, answer: TextAnswer) -> None:
        self._dirty[answer] = None
        if not self._scheduled:
            self._scheduled = True
            # After all that the engine's turn has to say.
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._channel.writable:
            self._write()

    def _write(self) -> None:
        encoder = self._encoder
        out: list[bytes] = []
        for answer in self._dirty:
            while answer.out or answer.ended:
                prefix = answer.prefix
                if not answer.flowed:
                    prefix = encoder.async_head(self._ids[answer], answer.headers())
                payload, last = answer.next_map(encoder)
                out += (prefix, len(payload).to_bytes(4, "big"), payload)
                if last:
                    self._ids.pop(answer, None)
                    break
        self._dirty.clear()
        if out:
            self._channel.write(b"".join(out))
