"""Answers to a list of prompts, from any `lmi.core.Engine`: for scripts, tests and measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lmi.core import (
    Delta,
    Engine,
    EngineDead,
    Finish,
    GenerationRequest,
    LmiError,
    Sampling,
    Token,
    Usage,
)

# How long one look for news takes at most: an interrupt is obeyed between two looks.
_POLL_SECONDS = 1.0

Prompt = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to a prompt. error: set if and only if finish is ERROR."""

    text: str
    tokens: tuple[Token, ...]
    finish: Finish
    usage: Usage | None = None
    error: LmiError | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one prompt gave. choices: `Sampling.n` of them. prompt_tokens: with logprobs, where
    `Sampling.prompt_logprobs` asked for them."""

    choices: tuple[Choice, ...]
    prompt_tokens: tuple[Token, ...] = ()

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text


@dataclass(slots=True)
class _Growing:
    """One choice while its deltas come."""

    tokens: list[Token] = field(default_factory=list)
    prompt: tuple[Token, ...] = ()
    last: Delta | None = None

    def take(self, delta: Delta) -> None:
        self.tokens += delta.tokens
        self.prompt = self.prompt or delta.prompt
        if delta.finish is not None:
            self.last = delta

    def choice(self) -> Choice:
        assert self.last is not None
        assert self.last.finish is not None
        return Choice(
            "".join([token.text for token in self.tokens]),
            tuple(self.tokens),
            self.last.finish,
            self.last.usage,
            self.last.error,
        )


def generate(
    engine: Engine,
    prompts: Sequence[Prompt],
    sampling: Sampling | Sequence[Sampling],
    ids: Iterator[int],
) -> list[Answer]:
    """Answer each prompt, in their order; they run together as far as the engine lets them.

    prompts: texts, or token ids. sampling: one for all, or one each. ids: of requests that were
    never used before. The engine must be idle: deltas of other requests would be lost. Raises
    RequestError for a prompt that is refused and EngineDead; a choice that failed alone says so in
    its `error`. Whatever ends the call early, an interrupt (Ctrl-C) too, the requests are cancelled
    and the engine is idle again.
    """
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    if len(settings) != len(prompts):
        raise ValueError(f"{len(settings)} samplings for {len(prompts)} prompts: expected as many")
    requests = [
        GenerationRequest(next(ids), prompt, setting)
        for prompt, setting in zip(prompts, settings, strict=True)
    ]
    live: dict[tuple[int, int], _Growing] = {}
    growing: dict[tuple[int, int], _Growing] = {}
    try:
        for request in requests:
            engine.submit(request)
            for choice in range(request.sampling.n):
                growing[request.id, choice] = live[request.id, choice] = _Growing()
        _take_all(engine, live)
    except EngineDead:
        raise
    except BaseException:
        for request_id in {request_id for request_id, _ in live}:
            engine.cancel(request_id)
        _take_all(engine, live)
        raise
    return [
        Answer(
            tuple([growing[request.id, n].choice() for n in range(request.sampling.n)]),
            growing[request.id, 0].prompt,
        )
        for request in requests
    ]


def _take_all(engine: Engine, live: dict[tuple[int, int], _Growing]) -> None:
    """Poll until nothing is live."""
    while live:
        for delta in engine.poll(_POLL_SECONDS):
            key = (delta.request_id, delta.choice)
            live[key].take(delta)
            if delta.finish is not None:
                del live[key]
