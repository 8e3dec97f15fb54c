"""Work in threads: what becomes of results that nobody waits for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lmi.session.threads import in_thread
from tests.unit.session.conftest import until

pytestmark = pytest.mark.anyio


async def test_a_result_or_an_error_comes_back() -> None:
    assert await in_thread(lambda: 3) == 3
    with pytest.raises(KeyError):
        await in_thread(lambda: {}["x"])


async def test_a_result_that_comes_after_the_cancellation_is_handed_on() -> None:
    gate, handed = threading.Event(), list[int]()
    task = asyncio.create_task(in_thread(lambda: 7 * gate.wait(20), unwanted=handed.append))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await until(lambda: handed == [7])


async def test_a_result_that_comes_with_the_cancellation_is_handed_on() -> None:
    gate, handed = threading.Event(), list[int]()
    task = asyncio.create_task(in_thread(lambda: 7 * gate.wait(20), unwanted=handed.append))
    await asyncio.sleep(0)
    # The loop stands still while the thread ends, so that both find it in one turn.
    threads = [each for each in threading.enumerate() if each.name == "lmi-session-work"]
    gate.set()
    for each in threads:
        each.join(20)
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: handed == [7])
