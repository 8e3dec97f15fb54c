"""Deltas written by hand, and an engine that says exactly what its test tells it to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from lmi.core import (
    Delta,
    EngineDead,
    EngineInfo,
    EngineStats,
    Finish,
    GenerationRequest,
    LmiError,
    Token,
    Usage,
)


def token(text: str, number: int = 7, logprob: float | None = -0.5) -> Token:
    return Token(number, text, logprob)


def script(
    tokens: Sequence[Token],
    finish: Finish = Finish.LENGTH,
    *,
    request_id: int = 1,
    choice: int = 0,
    prompt: tuple[Token, ...] = (),
    error: LmiError | None = None,
    prompt_tokens: int = 3,
) -> list[Delta]:
    """One delta for each token; the last one ends the choice, without a token if there is none."""
    groups = [(each,) for each in tokens] or [()]
    return chunks(groups, finish, request_id, choice, prompt, error, prompt_tokens)


def chunks(
    groups: Sequence[tuple[Token, ...]],
    finish: Finish = Finish.LENGTH,
    request_id: int = 1,
    choice: int = 0,
    prompt: tuple[Token, ...] = (),
    error: LmiError | None = None,
    prompt_tokens: int = 3,
) -> list[Delta]:
    """One delta for each group of tokens."""
    count = sum(len(group) for group in groups)
    last = len(groups) - 1
    return [
        Delta(
            request_id,
            choice,
            group,
            finish if place == last else None,
            Usage(prompt_tokens, count) if place == last else None,
            error if place == last else None,
            prompt if place == 0 else (),
        )
        for place, group in enumerate(groups)
    ]


def split(tokens: Sequence[Token], chance: random.Random) -> list[tuple[Token, ...]]:
    """The tokens in groups of random length, some of them empty; never no group at all."""
    groups: list[tuple[Token, ...]] = []
    place = 0
    while place < len(tokens):
        size = chance.choice((0, 1, 1, 2, 5))
        groups.append(tuple(tokens[place : place + size]))
        place += size
    return groups or [()]


class ScriptedEngine:
    """An engine in the hands of a test. What was submitted and cancelled is kept in order."""

    def __init__(
        self, max_batch: int = 4, refuse: Callable[[GenerationRequest], None] | None = None
    ):
        self.info = EngineInfo("scripted", "none", 4096, 1000, max_batch)
        self.submitted: list[GenerationRequest] = []
        self.cancelled: list[int] = []
        self.closed = 0
        self.polls = 0
        self.answer_first: str | None = None  # to a warm-up, say
        self._refuse = refuse
        self._live: dict[int, GenerationRequest] = {}
        self._deltas: list[Delta] = []
        self._dead: EngineDead | None = None
        self._wake: Callable[[], None] = lambda: None

    # The engine protocol

    def submit(self, request: GenerationRequest, /) -> None:
        if self._refuse is not None:
            self._refuse(request)
        self.submitted.append(request)
        self._live[request.id] = request
        if self.answer_first is not None:
            text, self.answer_first = self.answer_first, None
            self.say(request.id, text, Finish.LENGTH)
            self.wake()

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        self.polls += 1
        if self._dead is not None:
            raise self._dead
        deltas, self._deltas = self._deltas, []
        return deltas

    def cancel(self, request_id: int, /) -> None:
        self.cancelled.append(request_id)
        if request_id in self._live:
            self.push(Delta(request_id, 0, (), Finish.CANCELLED, Usage(3, 0)))
            self.wake()

    def on_ready(self, wake: Callable[[], None], /) -> None:
        self._wake = wake

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._live))

    def close(self) -> None:
        self.closed += 1

    # The test's side

    def say(self, request_id: int, text: str, finish: Finish | None = None) -> None:
        """A token of a request for the next poll; `wake` delivers it."""
        usage = Usage(3, 1) if finish is not None else None
        self.push(Delta(request_id, 0, (token(text),), finish, usage))

    def push(self, *deltas: Delta) -> None:
        self._deltas.extend(deltas)
        for delta in deltas:
            if delta.finish is not None:
                self._live.pop(delta.request_id, None)

    def wake(self) -> None:
        self._wake()

    def die(self, reason: str = "killed") -> None:
        self._dead = EngineDead(reason)
        self._wake()

    @property
    def live(self) -> Iterator[int]:
        return iter(self._live)
