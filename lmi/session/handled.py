"""A call that a user's `handle` is asked first: it answers itself, or leaves it to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lmi.core import Call, LmiError, Piece
from lmi.custom.answers import Whole, interpret
from lmi.custom.hooks import Hooks
from lmi.custom.streams import items_of
from lmi.session.function_call import FunctionCall
from lmi.session.life import Life
from lmi.session.live import Sink
from lmi.session.measures import Measures
from lmi.session.served import Accepted

Proceed = Callable[[Call, Sink], Accepted]


class HandledCall:
    """One that was accepted and has not ended. Lives from the moment it is made."""

    def __init__(
        self, hooks: Hooks, call: Call, sink: Sink, proceed: Proceed, life: Life, measures: Measures
    ) -> None:
        """proceed: opens the call at the engine; raises LmiError where that can't be."""
        self._hooks = hooks
        self._call = call
        self._sink = sink
        self._proceed = proceed
        self._life = life
        self._measures = measures
        self._own = FunctionCall(0, sink, measures, self._ended)
        self._passed: Accepted | None = None
        life.begin(self)
        self._task = asyncio.get_running_loop().create_task(self._run())
        life.tasks.add(self._task)
        self._task.add_done_callback(life.tasks.discard)

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self._own.open if self._passed is None else self._passed.open

    def cancel(self) -> None:
        """The client left."""
        if self._passed is not None:
            self._passed.cancel()
        elif self._own.open:
            self._own.cancel()
            self._task.cancel()

    def fail(self, error: LmiError) -> None:
        """End with an error."""
        if self._passed is None and self._own.open:
            self._own.fail(error)
            self._task.cancel()

    async def _run(self) -> None:
        try:
            result = await self._hooks.handle(self._call)
            if result is None:
                self._passed = self._proceed(self._call, self._sink)
                self._life.finish(self)
            else:
                await self._answer(result)
        except LmiError as error:
            self._own.fail(error)
        except Exception as error:  # what a user's stream or result may raise
            self._own.fail(self._hooks.failed("handler", error))

    async def _answer(self, result: object) -> None:
        answer = interpret(result)
        if isinstance(answer, Whole):
            self._own.feed(Piece(0, answer.body, answer.head, last=True))
        else:
            items = items_of(answer)
            try:
                async for value in items:
                    chunk = answer.encode(value)
                    head = None if self._own.started else (answer.head or chunk.head)
                    if chunk.error is not None:
                        raise self._hooks.failed("handler", RuntimeError(chunk.error))
                    self._own.feed(Piece(0, chunk.data, head, last=chunk.last))
                    self._own.flush()
                    if chunk.last:
                        break
            finally:
                await items.aclose()
            self._own.feed(Piece(0, last=True))
        if answer.after is not None:
            answer.after()

    def _ended(self, call: FunctionCall) -> None:
        self._measures.accepted += 1
        self._life.finish(self)
