"""How many requests may be held, and when a refused client should try again."""

from __future__ import annotations

import math

from lmi.core import BadPayload, Overloaded

_MIN_RETRY = 1.0  # seconds; Retry-After has whole seconds
_MAX_RETRY = 60.0  # seconds; an estimate further ahead is no estimate
_WINDOW = 10.0  # seconds over which the drain rate is averaged


class DrainRate:
    """Generations finished per second, as an exponential average over about ten seconds."""

    __slots__ = ("_count", "_rate", "_since")

    def __init__(self, now: float) -> None:
        """now: as of every update, in seconds of one clock."""
        self._rate = 0.0
        self._count = 0
        self._since = now

    def update(self, finished: int, now: float) -> None:
        """Tell the number finished so far; to be called about once a second."""
        elapsed = now - self._since
        if elapsed <= 0:
            return
        current = (finished - self._count) / elapsed
        weight = min(1.0, elapsed / _WINDOW) if self._rate else 1.0
        self._rate += weight * (current - self._rate)
        self._count = finished
        self._since = now

    def seconds_for(self, waiting: int) -> float:
        """How long a queue of so many takes to drain, between a second and a minute."""
        if self._rate <= 0:
            return _MIN_RETRY
        return min(_MAX_RETRY, max(_MIN_RETRY, math.ceil(waiting / self._rate)))


def admit(held: int, new: int, running: int, max_queue: int, rate: DrainRate) -> None:
    """Let `new` generations in beside `held` ones, or raise Overloaded.

    running: how many the engine can run at once; max_queue: how many may wait beside them. More
    than both together can never be let in: that is BadPayload.
    """
    room = running + max_queue
    if held + new <= room:
        return
    if new > room:
        raise BadPayload(f"inputs: {new} inputs, expected at most {room}", field="inputs")
    after = rate.seconds_for(max(1, held - running))
    raise Overloaded(
        f"the queue is full: {held} requests are held, {running} can run and {max_queue} may wait; "
        f"try again in {after:g} s",
        retry_after=after,
    )
