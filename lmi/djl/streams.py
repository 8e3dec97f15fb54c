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
        self._live: dict[str, TextAnswer] = {}
        self._dirty: dict[TextAnswer, None] = {}
        self._tasks: set[asyncio.Task[str]] = set()
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        channel.on_writable(self._flush)

    def __len__(self) -> int:
        return len(self._live)

    def open(self, message: Message) -> None:
        """Take a request in; whatever happens, it gets its answer."""
        tracking_id = message.properties[TRACKING_ID]
        answer = self._live[tracking_id] = TextAnswer(tracking_id, self._tell)
        try:
            answer.accepted = self._served.accept(call(message), answer)
        except LmiError as error:
            answer.fail(error)

    def run(self, message: Message, work: Coroutine[Any, Any, str]) -> None:
        """Answer a request with what `work` returns, or with the LmiError that it raises."""
        tracking_id = message.properties[TRACKING_ID]
        answer = self._live[tracking_id] = TextAnswer(tracking_id, self._tell)
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._worked(task, answer))

    def forget(self) -> None:
        """Cancel everything: Java is gone."""
        for answer in self._live.values():
            answer.cancel()
        for task in self._tasks:
            task.cancel()
        self._live.clear()
        self._dirty.clear()

    def flush(self) -> None:
        """Send what there is, however slowly Java reads."""
        self._write()

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
            while answer.waiting:
                headers = () if answer.flowed else answer.headers()
                payload, last = answer.next_map(encoder)
                out.append(encoder.async_reply(answer.key, payload, headers))
                if last:
                    self._live.pop(answer.key, None)
                    break
        self._dirty.clear()
        if out:
            self._channel.write(b"".join(out))
