"""Reading a request's body: bounded in size and in time, while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from lmi.core import RequestError


class BodyTooLarge(RequestError):
    """The body is longer than the server accepts."""

    code = 413


class BodyTooSlow(RequestError):
    """The body didn't arrive in time."""

    code = 408


class ClientLeft(RequestError):
    """The client closed the connection before its body was complete: there is nobody to answer."""

    code = 499


async def read_body(
    receive: Receive, headers: Mapping[str, str], max_size: int, seconds: float
) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as that is known, BodyTooSlow, ClientLeft.

    max_size: in bytes. seconds: from now to the last byte.
    """
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_size:
        raise _too_large(max_size)
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, max_size)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {seconds:g} s") from None


async def _read(receive: Receive, max_size: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft("the client left")
        part = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > max_size:
            raise _too_large(max_size)
        parts.append(part)
    return b"".join(parts)


def _too_large(max_size: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than max_request_size={max_size} bytes")
