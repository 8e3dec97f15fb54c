"""The alarm rings once for each time it was set, and not after it was closed."""

from __future__ import annotations

import queue
import time

import pytest

from lmi.engines.echo_alarm import Alarm

RING_SECONDS = 10.0


def test_it_rings_once_for_each_time() -> None:
    rings: queue.Queue[float] = queue.Queue()
    alarm = Alarm(lambda: rings.put(time.monotonic()))
    for wait in (0.0, 0.01):
        due = time.monotonic() + wait
        alarm.set(due)
        assert rings.get(timeout=RING_SECONDS) >= due
    alarm.close()
    assert rings.empty()


def test_a_new_time_takes_the_place_of_the_old_one() -> None:
    rings: queue.Queue[float] = queue.Queue()
    alarm = Alarm(lambda: rings.put(time.monotonic()))
    alarm.set(time.monotonic() + 3600)
    alarm.set(time.monotonic())
    assert rings.get(timeout=RING_SECONDS)
    alarm.close()
    assert rings.empty()


def test_closing_twice_or_from_its_own_ring_is_fine() -> None:
    closed: queue.Queue[bool] = queue.Queue()

    def ring() -> None:
        alarm.close()
        closed.put(True)

    alarm = Alarm(ring)
    alarm.set(time.monotonic())
    assert closed.get(timeout=RING_SECONDS)
    alarm.close()
    with pytest.raises(queue.Empty):
        closed.get_nowait()
