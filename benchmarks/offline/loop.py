"""The closed loop that drives every engine alike. Standard library only: peers run it too.

`concurrency` clients each send a request, wait for its answer, and send the next, until all are
answered. An engine is a `Stepper`: it takes requests at any time and works in steps. Whether a
request joins those that run already, or waits for the next batch, is the engine's own business:
that is what the measurement compares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """News of a request: ids it got, and whether it is answered.

    first: when its first id came (seconds of `time.perf_counter`), from engines that tell it later
    than it happened.
    """

    number: int
    ids: Sequence[int]
    over: bool
    first: float | None = None


class Stepper(Protocol):
    """An engine at token level: greedy, no end token."""

    def add(self, number: int, prompt: Ids, output: int) -> None:
        """Take a request for exactly `output` ids."""

    def step(self) -> Sequence[Piece]:
        """Work until there is news, or a little less."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of an engine: prompts[i] is answered with exactly outputs[i] ids."""

    prompts: list[Ids]
    outputs: list[int]
    concurrency: int


@dataclass(slots=True)
class Done:
    """What came of a job. Times are seconds since its first request; one entry per request.

    first: None where the engine does not tell when the first id came.
    """

    seconds: float = 0.0
    sent: list[float] = field(default_factory=list)
    first: list[float | None] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    answers: list[Ids] = field(default_factory=list)


class WrongAnswer(RuntimeError):
    """An engine gave another number of ids than was asked for."""


def drive(stepper: Stepper, job: Job, now: Callable[[], float] = time.perf_counter) -> Done:
    """Run a job to its end. Raises WrongAnswer."""
    count = len(job.prompts)
    done = Done(
        sent=[0.0] * count,
        first=[None] * count,
        ended=[0.0] * count,
        answers=[[] for _ in job.prompts],
    )
    began = now()
    waiting = iter(range(count))
    live: set[int] = set()

    def send() -> None:
        number = next(waiting, None)
        if number is not None:
            done.sent[number] = now() - began
            live.add(number)
            stepper.add(number, job.prompts[number], job.outputs[number])

    for _ in range(job.concurrency):
        send()
    while live:
        for piece in stepper.step():
            number = piece.number
            if done.first[number] is None and (piece.ids or piece.first is not None):
                done.first[number] = (now() if piece.first is None else piece.first) - began
            done.answers[number].extend(piece.ids)
            if piece.over:
                done.ended[number] = now() - began
                live.remove(number)
                if len(done.answers[number]) != job.outputs[number]:
                    raise WrongAnswer(
                        f"request {number} got {len(done.answers[number])} ids, "
                        f"asked for {job.outputs[number]}"
                    )
                send()
    done.seconds = now() - began
    return done
