"""A worker's loop for a handler that is a plain function: one request, or one batch, at a time.

The handler runs on the process's main thread and outside of any event loop, as users' code expects.
Between two chunks of a stream the worker looks whether the client left.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

from lmi.custom import batches
from lmi.custom.answers import Stream, Whole, failure, interpret
from lmi.custom.channel import Channel
from lmi.custom.handlers import Handler
from lmi.custom.inputs import batch, single
from lmi.custom.messages import WINDOW, Cancel, Close, Part, Request, Taken, Work
from lmi.custom.parts import end, fault_of, head_of, whole

log = logging.getLogger("lmi.custom")

_NOTHING: Final = object()


class Closed(Exception):
    """The front asked the worker to end."""


class Serial:
    """Obeys the front until it says Close. Raises ConnectionError when it is gone."""

    def __init__(
        self, channel: Channel, handler: Handler, own: Mapping[str, Any], runner: asyncio.Runner
    ) -> None:
        """own: what every request's properties hold. runner: for results that must be awaited."""
        self._channel = channel
        self._handler = handler
        self._own = own
        self._runner = runner
        self._work: deque[Work] = deque()
        self._cancelled: set[int] = set()
        self._untaken = 0  # bytes of the stream under way

    def run(self) -> None:
        """Serve; returns after Close."""
        try:
            while True:
                while self._work:
                    self._serve(self._work.popleft())
                self._obey(wait=True)
        except Closed:
            return

    def _obey(self, wait: bool) -> None:
        for message in self._channel.next() if wait else self._channel.waiting():
            match message:
                case Work():
                    self._work.append(message)
                case Cancel(call_id):
                    self._cancelled.add(call_id)
                case Taken(_, size):
                    self._untaken -= size
                case Close():
                    raise Closed

    def _serve(self, work: Work) -> None:
        requests = work.requests
        self._cancelled.clear()  # of calls that are over
        self._untaken = 0
        if len(requests) > 1:
            self._serve_batch(requests)
            return
        request = requests[0]
        try:
            answer = interpret(self._call(single(request, self._own), request.function))
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            log.exception("%s failed", self._handler.described)
            answer = failure(error)
        if isinstance(answer, Whole):
            self._channel.send(whole(request.id, answer))
        else:
            self._stream(request.id, answer)
        self._finalize(answer)

    def _serve_batch(self, requests: Sequence[Request]) -> None:
        try:
            result = self._call(batch(requests, self._own), requests[0].function)
            answers = batches.split(result, len(requests))
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            log.exception("%s failed with a batch of %d", self._handler.described, len(requests))
            answers = batches.shared(failure(error), len(requests))
        for request, answer in zip(requests, answers, strict=True):
            self._channel.send(whole(request.id, answer))
        for answer in answers:
            self._finalize(answer)

    def _call(self, inputs: Any, function: str) -> Any:
        called = self._handler.named(function)
        if called is None:
            raise AttributeError(f"the model's code has no function {function!r}")
        result = called(inputs)
        return self._runner.run(_awaited(result)) if inspect.isawaitable(result) else result

    def _stream(self, call_id: int, stream: Stream) -> None:
        items = self._items(stream)
        head = stream.head
        begun = False
        try:
            for value in items:
                self._obey(wait=False)
                if call_id in self._cancelled:
                    break
                chunk = stream.encode(value)
                described = None if begun else (head or chunk.head)
                if chunk.error is not None:
                    self._channel.send(fault_of(call_id, chunk, begun))
                    return
                begun = True
                self._send(Part(call_id, chunk.data, head_of(described), last=chunk.last))
                if chunk.last:
                    return
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            if isinstance(error, Closed | ConnectionError):
                raise
            log.exception("the stream of %s failed", self._handler.described)
            self._channel.send(end(call_id, begun, head, error))
            return
        finally:
            items.close()
        self._channel.send(end(call_id, begun, head, None))

    def _send(self, part: Part) -> None:
        self._channel.send(part)
        self._untaken += len(part.data)
        while self._untaken > WINDOW and part.call_id not in self._cancelled and not part.last:
            self._obey(wait=True)

    def _items(self, stream: Stream) -> Generator[Any, None, None]:
        """The items, whatever kind of iterator brings them; closing this one closes that."""
        items = stream.items
        try:
            if isinstance(items, Iterator):
                yield from items
                return
            while (value := self._runner.run(_next(items))) is not _NOTHING:
                yield value
        finally:
            close: Callable[[], Any] | None = getattr(items, "aclose", None)
            if close is not None:
                self._runner.run(_awaited(close()))
            elif (close := getattr(items, "close", None)) is not None:
                close()

    def _finalize(self, answer: Whole | Stream) -> None:
        if answer.after is not None:
            try:
                answer.after()
            except Exception:  # the answer is out: nothing else can be done for it
                log.exception("finalize of %s failed", self._handler.described)


async def _awaited(result: Any) -> Any:
    return await result


async def _next(items: Any) -> Any:
    return await anext(items, _NOTHING)
