"""A handler's stream on an event loop, whatever kind of iterator brings its items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final

from lmi.custom.answers import Stream

_NOTHING: Final = object()


async def items_of(stream: Stream) -> AsyncGenerator[Any, None]:
    """The items, whatever kind of iterator brings them; closing this one closes that."""
    items = stream.items
    try:
        if isinstance(items, AsyncIterator):
            async for value in items:
                yield value
            return
        # A plain iterator may block, so a thread waits for its items.
        while (value := await asyncio.to_thread(next, items, _NOTHING)) is not _NOTHING:
            yield value
    finally:
        close: Callable[[], Any] | None = getattr(items, "aclose", None)
        if close is not None:
            await close()
        elif (close := getattr(items, "close", None)) is not None:
            close()
