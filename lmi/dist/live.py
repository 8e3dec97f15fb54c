"""The live requests of a front: which deltas an event of the core becomes.

Two kinds. A streamed request shows each choice as it grows. A ranked one (`best_of` above `n`) can
show nothing until all its candidates are over, since only then the best are known.
"""

from __future__ import annotations

from enum import Enum
from itertools import repeat
from typing import Final, Protocol

from lmi.core import Delta, Finish, GenerationRequest, LmiError, Token, TopToken, Usage
from lmi.dist.choice import Choice
from lmi.dist.messages import CoreDetail, CoreEvent
from lmi.text import StopStrings, Tokenizer

_NO_DETAIL: Final = CoreDetail()
# How a candidate that ended so ranks: before those that were cut off.
_WHOLE: Final = frozenset({Finish.EOS, Finish.STOP, Finish.LENGTH})


class Ending(Enum):
    """What an event ended."""

    NOTHING = 0  # its choice goes on, or was over before
    CHOICE = 1
    REQUEST = 2  # with its last choice


class Live(Protocol):
    """A request of which deltas are still to come."""

    def take(self, event: CoreEvent, deltas: list[Delta], /) -> Ending:
        """Append the deltas of an event of this request."""


def live_request(
    request: GenerationRequest, prompt: tuple[int, ...], tokenizer: Tokenizer, choices: int
) -> Live:
    """A request that begins now. choices: how many the core generates. Raises BadPayload."""
    sampling = request.sampling
    stops = StopStrings(sampling.stop) if sampling.stop else None
    begun = [Choice(request, prompt, tokenizer, stops) for _ in range(choices)]
    if choices > sampling.n:
        return Ranked(request, len(prompt), tokenizer, begun)
    return Streamed(request.id, len(prompt), tokenizer, begun)


class Streamed:
    """Each event is a delta at once."""

    __slots__ = ("_choices", "_id", "_left", "_prompt_tokens", "_tokenizer")

    def __init__(
        self, request_id: int, prompt_tokens: int, tokenizer: Tokenizer, choices: list[Choice]
    ) -> None:
        self._id = request_id
        self._prompt_tokens = prompt_tokens
        self._tokenizer = tokenizer
        self._choices: list[Choice | None] = [*choices]  # None: over
        self._left = len(choices)

    def take(self, event: CoreEvent, deltas: list[Delta], /) -> Ending:
        index = event.choice
        choice = self._choices[index]
        if choice is None:  # a stop string ended it, and the core had not heard of it yet
            return Ending.NOTHING
        tokens, finish = choice.take(event)
        detail = event.detail
        if finish is None and detail is None:
            deltas.append(Delta(self._id, index, tokens))
            return Ending.NOTHING
        if detail is None:
            detail = _NO_DETAIL
        choice.cached = choice.cached or detail.cached_tokens
        prompt = _prompt(detail, self._tokenizer)
        if finish is None:
            deltas.append(Delta(self._id, index, tokens, prompt=prompt))
            return Ending.NOTHING
        usage = Usage(self._prompt_tokens, choice.count, choice.cached)
        error = _error(detail, finish)
        deltas.append(Delta(self._id, index, tokens, finish, usage, error, prompt))
        self._choices[index] = None
        self._left -= 1
        return Ending.CHOICE if self._left else Ending.REQUEST


class _Candidate:
    """What is known of one of the candidates of a ranked request."""

    __slots__ = ("choice", "error", "finish", "tokens", "total")

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.tokens: list[Token] = []
        self.total = 0.0  # of the logprobs
        self.finish: Finish | None = None
        self.error: LmiError | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        """The greater the better."""
        mean = self.total / len(self.tokens) if self.tokens else float("-inf")
        return self.finish in _WHOLE, mean


class Ranked:
    """Keeps all candidates, then gives the n best by mean logprob, the best as choice 0."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt_tokens: int,
        tokenizer: Tokenizer,
        choices: list[Choice],
    ) -> None:
        self._id = request.id
        self._n = request.sampling.n
        self._with_logprobs = request.sampling.logprobs is not None
        self._prompt_tokens = prompt_tokens
        self._tokenizer = tokenizer
        self._candidates = [_Candidate(choice) for choice in choices]
        self._left = len(choices)
        self._prompt: tuple[Token, ...] = ()

    def take(self, event: CoreEvent, deltas: list[Delta], /) -> Ending:
        candidate = self._candidates[event.choice]
        if candidate.finish is not None:
            return Ending.NOTHING
        tokens, finish = candidate.choice.take(event)
        for token in tokens:
            candidate.total += token.logprob or 0.0
            candidate.tokens.append(token if self._with_logprobs else token._replace(logprob=None))
        detail = event.detail or _NO_DETAIL
        candidate.choice.cached = candidate.choice.cached or detail.cached_tokens
        self._prompt = self._prompt or _prompt(detail, self._tokenizer)
        if finish is None:
            return Ending.NOTHING
        candidate.finish = finish
        candidate.error = _error(detail, finish)
        self._left -= 1
        if self._left:
            return Ending.CHOICE
        deltas.extend(self._best())
        return Ending.REQUEST

    def _best(self) -> list[Delta]:
        best = sorted(self._candidates, key=lambda candidate: candidate.rank, reverse=True)
        return [
            Delta(
                self._id,
                index,
                tuple(candidate.tokens),
                candidate.finish,
                Usage(self._prompt_tokens, candidate.choice.count, candidate.choice.cached),
                candidate.error,
                () if index else self._prompt,
            )
            for index, candidate in enumerate(best[: self._n])
        ]


def _prompt(detail: CoreDetail, tokenizer: Tokenizer) -> tuple[Token, ...]:
    text, special = tokenizer.text, tokenizer.special_ids
    ranked = detail.prompt_top or repeat(())
    return tuple(
        [
            Token(
                token_id,
                text(token_id),
                logprob,
                tuple([TopToken(other, text(other), score) for other, score in top]),
                token_id in special,
            )
            for (token_id, logprob), top in zip(detail.prompt, ranked, strict=False)
        ]
    )


def _error(detail: CoreDetail, finish: Finish) -> LmiError | None:
    if finish is not Finish.ERROR or detail.error is None:
        return None
    return detail.error.exception()
