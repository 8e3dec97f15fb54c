"""One connection from its first message to its end: what comes is given to the loop it is for.

The first message initialises the model. After it, requests with a tracking id are served side by
side; all others are answered one after the other, in the order in which they came.

How a model that failed for good ends this process is told by what Java counts as a failure, which
is what turns its ping red. In async mode that is a closed socket: we leave at once. Else it is a
worker that dies while a request waits: we leave with the next one (see `steps` for the rolling
batch); a death between requests would go unnoticed for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from lmi.core import LmiError, OutOfMemory
from lmi.djl import outcome
from lmi.djl.arguments import Arguments
from lmi.djl.calls import batch_size
from lmi.djl.channel import Channel
from lmi.djl.encode import Encoder
from lmi.djl.host import AdapterFolders, Host
from lmi.djl.loops import Loops, is_async, rolls, tracked
from lmi.djl.steps import Doomed
from lmi.djl.wire import Message, ProtocolError, Width
from lmi.session import Served

log = logging.getLogger("lmi.djl")

_WATCH: Final = 0.2  # seconds between looks at the model's health
_FOLLOWS: Final = (
    "this rank computes for the first one and answers nothing itself: expected "
    "option.use_passive_workers=true and a model server of 0.27 or later"
)


class Front:
    """Serves one connection."""

    def __init__(
        self,
        arguments: Arguments,
        host: Host,
        end_server: Callable[[], object],
        ready: Callable[[Served], None] = lambda served: None,
    ) -> None:
        """end_server: ends the Java server; it may take its time. ready: gets the model once it
        answers."""
        loop = asyncio.get_running_loop()
        self.channel = Channel(self._take, self._gone)
        self.over: asyncio.Future[int] = loop.create_future()
        self._arguments = arguments
        self._host = host
        self._end_server = end_server
        self._ready = ready
        self._served: Served | None = None
        self._loops: Loops | None = None
        self._inbox: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._serving = loop.create_task(self._serve())
        self._serving.add_done_callback(self._ended)

    async def run(self) -> int:
        """Serve until it is over, and release everything; returns the process's exit code."""
        try:
            return await self.over
        finally:
            await self._close()

    async def _close(self) -> None:
        tasks = {task for task in (self._serving, self._watching) if task is not None}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.channel.read_by_peer()
        if self._loops is not None:
            self._loops.forget()
        self.channel.close()
        if self._served is not None:
            await self._served.close()

    # What comes in

    def _take(self, message: Message) -> None:
        if self._loops is not None and tracked(message):
            self._loops.open(message)
        else:
            self._inbox.append(message)
            self._arrived.set()

    async def _next(self) -> Message:
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    # How it ends

    def _gone(self, garbage: bool) -> None:
        if self._loops is not None:
            self._loops.forget()
        self.end(1 if garbage else 0)

    def _ended(self, serving: asyncio.Task[int]) -> None:
        if serving.cancelled():
            return
        error = serving.exception()
        if error is not None:
            log.error("the worker's front failed", exc_info=error)
        self.end(1 if error is not None else serving.result())

    def end(self, code: int) -> None:
        """Let the process end with this code; the first one counts."""
        if not self.over.done():
            self.over.set_result(code)

    # One message after the other

    async def _serve(self) -> int:
        first = await self._next()
        options = first.properties
        width = self.channel.decoder.width or Width.LONG
        encoder = Encoder(width, self._arguments.field_limit)
        side_by_side = is_async(options, self._arguments.async_mode)
        try:
            served = self._served = await self._host.initialise(options)
        except LmiError as error:
            return await self._refuse(error, encoder, side_by_side)
        if served is None:
            self._welcome(encoder)
            return await self._follow(encoder, rolls(options, width))
        host = self._host
        folders = (
            host.adapter_folders()
            if isinstance(host, AdapterFolders)
            else (self._arguments.model_dir,)
        )
        loops = Loops(served, encoder, self.channel, options, folders)
        self._loops = loops
        self._ready(served)
        self._welcome(encoder)
        if side_by_side:
            self._watching = asyncio.get_running_loop().create_task(self._watch(loops))
        await self._serve_on(loops)
        log.error("the model is gone for good: this process ends")
        return 1

    async def _serve_on(self, loops: Loops) -> None:
        """Ends where the process must end."""
        while True:
            message = await self._next()
            if tracked(message):  # it came while the model was loading
                loops.open(message)
                continue
            if loops.failed and not loops.rolling:
                return
            try:
                await loops.answer(message)
            except Doomed:
                return
            except ProtocolError as error:
                log.error("a message that can't be answered: %s", error)
                return

    async def _watch(self, loops: Loops) -> None:
        while not loops.failed:  # noqa: ASYNC110 - a session tells its health, and no event
            await asyncio.sleep(_WATCH)
        loops.streams.flush()
        log.error("the model is gone for good: this process ends")
        self.end(1)

    # The initialise message

    def _welcome(self, encoder: Encoder) -> None:
        self.channel.write(encoder.reply(204, outcome.NO_CONTENT))

    async def _refuse(self, error: LmiError, encoder: Encoder, side_by_side: bool) -> int:
        """Say why there is no model. Java shows the message, and its server ends or goes on."""
        log.error("the model could not be loaded: %s", error)
        if side_by_side:
            # Java would wait for ever on its own lock, whatever we answer and however we end.
            await asyncio.get_running_loop().run_in_executor(None, self._end_server)
            return 1
        code = 507 if isinstance(error, OutOfMemory) else 500
        self.channel.write(encoder.reply(code, str(error)))
        await self.channel.read_by_peer()
        return 1

    async def _follow(self, encoder: Encoder, rolling: bool) -> int:
        """A rank that serves nothing: what is asked of it anyway is answered with an error."""
        while True:
            message = await self._next()
            size = batch_size(message)
            if size is not None and rolling:
                item = encoder.item_of(encoder.error_map(500, _FOLLOWS))
                self.channel.write(encoder.batch_reply((), [item] * size))
            else:
                self.channel.write(encoder.reply(500, _FOLLOWS))
