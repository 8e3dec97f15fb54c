"""Rolling batch: Java sends the whole batch each step, and we answer with what there is.

Java and we keep the same list: a request's index is its position in it. Java drops those that we
called last, and appends new ones. Where the two lists differ, the reply is a 500: Java then tells
every client that the batch failed, forgets its list, and says so in its next message (`reset`).

A step is answered as soon as anybody has something. While nobody has, it waits a little: new
requests reach us with a step only, and Java gives up on one that lasts its `predict_timeout`.

When the model is gone for good, this process must end while a step waits: only that turns Java's
ping red, and it tells the waiting clients nothing. So they are told first, by a map that answers a
client and leaves its request in Java's list: the next step is the one that ends us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from lmi.core import Call, LmiError, Unavailable
from lmi.djl import outcome
from lmi.djl.answer import TextAnswer
from lmi.djl.calls import batch_size, parts
from lmi.djl.encode import Encoder
from lmi.djl.wire import RESET, Message, ProtocolError, Width
from lmi.session import Served, State

log = logging.getLogger("lmi.djl")

# Seconds without news before a step is answered with nothing: new requests may be waiting in Java.
_PATIENCE: Final = 0.01
# The same where the batch is full and nobody new can come: Java only has to see that we live.
_HEARTBEAT: Final = 1.0
_RESET: Final = "true"


class Doomed(Exception):
    """The model is gone for good and everybody has been told: the process must end now."""


class StepLoop:
    """The batch of one connection."""

    def __init__(
        self, served: Served, encoder: Encoder, *, max_batch: int, predict_timeout: float
    ) -> None:
        """max_batch: how many requests Java puts into a batch. predict_timeout: seconds after
        which Java gives a step up."""
        self._served = served
        self._encoder = encoder
        self._max_batch = max_batch
        self._heartbeat = min(_HEARTBEAT, predict_timeout / 4)
        self._patience = min(_PATIENCE, self._heartbeat)
        self._members: list[TextAnswer] = []
        self._news = False
        self._waiter: asyncio.Future[None] | None = None
        self._told: set[TextAnswer] = set()  # that the model is gone
        self._nothing = encoder.data_map(b"", last=False)

    def __len__(self) -> int:
        return len(self._members)

    async def step(self, message: Message) -> bytes:
        """The reply to one step. Raises Doomed where there must be none."""
        try:
            self._take(message)
        except ProtocolError as error:
            log.error("a rolling batch that does not fit the one before it: %s", error)
            self.forget()
            return self._encoder.reply(500, one_reason(error))
        if self._served.health().state is State.FAILED:
            return self._last_words()
        if self._members and not self._news:
            await self._wait()
        return self._reply()

    def forget(self) -> None:
        """Cancel everything: Java has dropped its list, or is gone."""
        for member in self._members:
            member.cancel()
        self._members.clear()
        self._news = False

    def _take(self, message: Message) -> None:
        if message.properties.get(RESET, "").lower() == _RESET:
            self.forget()
        size = batch_size(message) or 0
        known = len(self._members)
        if size < known:
            raise ProtocolError(f"{size} requests, {known} of them were expected to go on")
        if size == known:
            if len(message.content) != size:
                raise ProtocolError(f"{len(message.content)} items for {size} known requests")
            return
        for call in parts(message, size, known):
            self._open(call)

    def _open(self, call: Call) -> None:
        # The seed is for ranks that sample by themselves; ours take rank 0's tokens.
        content = tuple([item for item in call.content if item[0] != "seed"])
        answer = TextAnswer(self._tell)
        self._members.append(answer)
        try:
            answer.accepted = self._served.accept(
                Call(content, call.properties, call.route, call.function), answer
            )
        except LmiError as error:
            answer.fail(error)

    def _tell(self, answer: TextAnswer) -> None:
        self._news = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        full = len(self._members) >= self._max_batch
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(
            self._heartbeat if full else self._patience,
            self._wake,
        )
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _reply(self) -> bytes:
        encoder = self._encoder
        empty = encoder.empty_item
        headers: list[tuple[str, str]] = []
        items: list[bytes] = []
        over: list[TextAnswer] = []
        news = False
        for place, member in enumerate(self._members):
            if not member.out and not member.ended:
                items.append(empty)
                continue
            if not member.flowed:
                headers += self._headers(place, member)
            payload, last = member.next_map(encoder)
            items.append(encoder.item_of(payload))
            if last:
                over.append(member)
            elif member.ended or member.out:
                news = True
        for member in over:
            self._members.remove(member)
        self._news = news
        return encoder.batch_reply(headers, items)

    def _headers(self, place: int, member: TextAnswer) -> Sequence[tuple[str, str]]:
        if self._encoder.width is Width.SHORT:
            return ()  # those versions know of none, and always say application/json
        return [(f"batch_{place}_{name}", value) for name, value in member.headers()]

    def _last_words(self) -> bytes:
        """Tell those who were not told yet; raises Doomed where all were."""
        untold = [member for member in self._members if member not in self._told]
        if self._members and not untold:
            raise Doomed
        error = Unavailable(f"the model failed: {self._served.health().reason}")
        items: list[bytes] = []
        staying: list[TextAnswer] = []
        for member in self._members:
            last = False
            payload = self._nothing
            if member.flowed:
                if member.out or member.ended:  # the session has ended its stream by an event
                    payload, last = member.next_map(self._encoder)
            elif member not in self._told:
                self._told.add(member)
                told = member.error or error
                payload = self._encoder.doomed_map(outcome.status(told), str(told))
            items.append(self._encoder.item_of(payload))
            if not last:
                staying.append(member)
        self._members = staying
        log.error("the model failed for good: this process ends with the next step")
        return self._encoder.batch_reply((), items)


def one_reason(error: Exception) -> str:
    """An error as a reply's message."""
    return str(error) or type(error).__name__
