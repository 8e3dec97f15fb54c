"""Blocking work off the event loop, in threads that never hold up the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], unwanted: Callable[[T], object] | None = None) -> T:
    """Run `work` in a daemon thread and return its result, or raise what it raised.

    unwanted: gets, in a thread, a result that comes when nobody waits for it any more.
    Not asyncio.to_thread: its threads are joined at exit, and a model that is half loaded would
    keep a terminated process alive for minutes.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T) -> None:
        if not result.done():
            result.set_result(value)
        elif unwanted is not None:
            _start(lambda: unwanted(value))

    def fail(error: BaseException) -> None:
        if not result.done():
            result.set_exception(error)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # raised again where it is awaited
            _post(loop, fail, error)
        else:
            if not _post(loop, settle, value) and unwanted is not None:
                unwanted(value)

    _start(run)
    try:
        return await result
    except asyncio.CancelledError:
        # The result may have come in the same turn of the loop as the cancellation.
        if unwanted is not None and not result.cancelled() and result.exception() is None:
            value = result.result()
            _start(lambda: unwanted(value))
        raise


def _start(run: Callable[[], object]) -> None:
    threading.Thread(target=run, daemon=True, name="lmi-session-work").start()


def _post(loop: asyncio.AbstractEventLoop, call: Callable[[T], None], value: T) -> bool:
    """Call on the loop's thread; False where the loop is closed and nobody is left who waits."""
    try:
        loop.call_soon_threadsafe(call, value)
    except RuntimeError:
        return False
    return True
