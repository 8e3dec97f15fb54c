"""Drives an engine by its protocol, writes down what it says, and judges each delta at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lmi.core import (
    Delta,
    Engine,
    Finish,
    GenerationRequest,
    RequestError,
    Sampling,
)
from tests.support.drive import Said

# A request id is never used twice in a process, so all observers count together.
_ids: Final = itertools.count(1)
GREEDY: Final = Sampling()


class Invariant(StrEnum):
    """What is true of every engine: those of `lmi.core.types`, then those of the protocol."""

    TOKENS = "the tokens of a choice come in order, none lost or repeated"
    ONE_FINISH = "exactly one finish per choice, on its last delta"
    NOTHING_AFTER = "nothing after the finish"
    ALL_FINISH = "every accepted request finishes"
    ONE_IS_HARMED = "an error harms one request"
    TEXT = "the text is the tokenizer's decoding of the visible ids, cut at the stop"
    ALONE = "a request gives the same alone, again, and in a crowd"
    CANCEL = "cancel stops a request"
    REFUSAL = "a refused request leaves nothing behind"
    WAKE = "wake is called when poll has news"
    POLL = "poll waits no longer than it may"
    NOTHING_LEFT = "an idle engine holds nothing"
    CLOSE = "close is idempotent"
    DEATH = "a dead engine wakes its caller and raises EngineDead"


class Violation(AssertionError):
    """An engine broke an invariant."""

    def __init__(self, invariant: Invariant, what: str) -> None:
        self.invariant = invariant
        super().__init__(f"{invariant.name} ({invariant}): {what}")


def require(true: bool, invariant: Invariant, what: str) -> None:
    if not true:
        raise Violation(invariant, what)


class Reply(Said):
    """What one choice has said so far."""

    @property
    def gist(self) -> tuple[list[int], str, Finish | None]:
        """What may not depend on the company a request runs in."""
        return self.ids, self.text, self.finish


@dataclass
class Observed:
    """A request that was accepted, and its choices' replies in order."""

    request: GenerationRequest
    replies: list[Reply]
    cancelled: bool = False

    @property
    def over(self) -> bool:
        return all(reply.finish is not None for reply in self.replies)

    @property
    def reply(self) -> Reply:
        """The reply of a request with one choice."""
        [reply] = self.replies
        return reply


class Observer:
    """patience: an engine that says nothing for so many seconds has forgotten its requests."""

    def __init__(self, engine: Engine, patience: float) -> None:
        self.engine = engine
        self.patience = patience
        self.polls = 0
        self._seen: dict[int, Observed] = {}
        self._refused: set[int] = set()

    def submit(self, prompt: str | tuple[int, ...], sampling: Sampling = GREEDY) -> Observed:
        """Submit a request with a fresh id; a RequestError leaves nothing here."""
        request = GenerationRequest(next(_ids), prompt, sampling)
        try:
            self.engine.submit(request)
        except RequestError:
            self._refused.add(request.id)
            raise
        observed = Observed(request, [Reply() for _ in range(sampling.n)])
        self._seen[request.id] = observed
        return observed

    def refused(self, prompt: str | tuple[int, ...], sampling: Sampling = GREEDY) -> RequestError:
        """Submit what must be refused; the refused id is unknown here ever after."""
        try:
            self.submit(prompt, sampling)
        except RequestError as error:
            return error
        raise Violation(Invariant.REFUSAL, f"{sampling} was accepted")

    def cancel(self, observed: Observed) -> None:
        observed.cancelled = True
        self.engine.cancel(observed.request.id)

    def poll(self, timeout: float) -> int:
        """One poll; how many deltas came."""
        deltas = self.engine.poll(timeout)
        self.polls += 1
        for delta in deltas:
            self._take(delta)
        return len(deltas)

    def until_over(self, *awaited: Observed) -> None:
        """Poll, blocking, until these requests are over; without any, all."""
        self._until(awaited, self.poll)

    def until_over_by_wake(self, *awaited: Observed) -> None:
        """The same as a front with an event loop does it: one poll(0) for each wake."""
        woken = threading.Event()
        self.engine.on_ready(woken.set)

        def wait_then_poll(timeout: float) -> int:
            if not woken.wait(timeout):
                raise Violation(Invariant.WAKE, f"no wake in {timeout} s with live requests")
            woken.clear()
            return self.poll(0)

        self._until(awaited, wait_then_poll)

    def _until(self, awaited: Iterable[Observed], poll: Callable[[float], int]) -> None:
        wanted = list(awaited) or list(self._seen.values())
        quiet_since = time.monotonic()
        while not all(observed.over for observed in wanted):
            if poll(self.patience):
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= self.patience:
                open_ids = [each.request.id for each in wanted if not each.over]
                raise Violation(
                    Invariant.ALL_FINISH,
                    f"requests {open_ids} heard nothing for {self.patience} s",
                )

    def _take(self, delta: Delta) -> None:
        # Every delta of every check comes by here, so nothing is put into words before it is wrong.
        reply = self._reply(delta)
        if reply.finish is not None:
            twice = Invariant.ONE_FINISH if delta.finish else Invariant.NOTHING_AFTER
            raise Violation(twice, f"{delta} after {reply.finish}")
        if (delta.error is None) == (delta.finish is Finish.ERROR):
            what = f"{delta}: an error is set if and only if the finish is ERROR"
            raise Violation(Invariant.ONE_FINISH, what)
        if delta.usage is not None and delta.finish is None:
            raise Violation(Invariant.ONE_FINISH, f"{delta}: usage before the last delta")
        reply.tokens += delta.tokens
        reply.prompt += delta.prompt
        reply.finish = delta.finish
        reply.usage = delta.usage
        reply.error = delta.error

    def _reply(self, delta: Delta) -> Reply:
        """The reply of the choice that a delta is of."""
        if delta.request_id in self._refused:
            raise Violation(Invariant.REFUSAL, f"{delta} is of a refused request")
        observed = self._seen.get(delta.request_id)
        if observed is None:
            raise Violation(Invariant.TOKENS, f"{delta} is of no accepted request")
        if not 0 <= delta.choice < len(observed.replies):
            raise Violation(Invariant.TOKENS, f"{delta}: no such choice")
        return observed.replies[delta.choice]
