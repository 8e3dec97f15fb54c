"""Drive an engine to the end of its requests."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lmi.core import Delta, Engine, Finish, GenerationRequest, LmiError, Token, Usage

PATIENCE_SECONDS = 60.0


@dataclass
class Said:
    """All that came of one choice."""

    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None
    usage: Usage | None = None
    error: LmiError | None = None
    prompt: tuple[Token, ...] = ()

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


Answers = dict[tuple[int, int], Said]


def take(answers: Answers, deltas: Iterable[Delta]) -> None:
    """Add deltas to the answers; a choice that is over must stay so."""
    for delta in deltas:
        said = answers[delta.request_id, delta.choice]
        assert said.finish is None, f"{delta} came after the finish"
        said.tokens += delta.tokens
        said.prompt = said.prompt or delta.prompt
        said.finish, said.usage, said.error = delta.finish, delta.usage, delta.error


def drive(
    engine: Engine,
    requests: Iterable[GenerationRequest],
    each_poll: Callable[[Answers], None] = lambda answers: None,
) -> Answers:
    """Submit all requests and poll until every choice is over."""
    answers: Answers = defaultdict(Said)
    expected: set[tuple[int, int]] = set()
    for request in requests:
        engine.submit(request)
        expected |= {(request.id, choice) for choice in range(request.sampling.n)}
    until = time.monotonic() + PATIENCE_SECONDS
    while any(answers[key].finish is None for key in expected):
        assert time.monotonic() < until, "the engine forgot a request"
        take(answers, engine.poll(1.0))
        each_poll(answers)
    assert set(answers) == expected
    return answers
