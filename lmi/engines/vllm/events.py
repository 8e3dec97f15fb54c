"""What vLLM says of a choice after a step, as our core's events. No vLLM here: its output objects
are read, not made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lmi.core import BadPayload, EngineError, Finish, LmiError
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest

# vLLM's FinishReason, by its text: an enumeration of numbers whose members print as these.
_STOP: Final = "stop"
_LENGTH: Final = "length"
_REPETITION: Final = "repetition"
_ABORT: Final = "abort"


class Speaker:
    """One choice that vLLM generates: turns its outputs into events.

    prompt tokens and cached ones are told once, with the first token.
    """

    __slots__ = (
        "_cached",
        "_choice",
        "_prompt",
        "_prompt_top",
        "_request",
        "_silent",
        "_stop_ids",
        "_top",
    )

    def __init__(self, request: CoreRequest, choice: int) -> None:
        self._request = request
        self._choice = choice
        self._stop_ids = frozenset(request.stop_token_ids)
        self._top = request.logprobs
        self._silent = True  # no token yet
        self._cached = 0
        self._prompt: tuple[tuple[int, float | None], ...] = ()
        self._prompt_top: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def request(self) -> CoreRequest:
        """The request that it is a choice of."""
        return self._request

    def hear(self, output: Any, events: list[CoreEvent]) -> bool:
        """Append the events of one of vLLM's EngineCoreOutputs; whether the choice is over."""
        tokens: Sequence[int] = output.new_token_ids
        reason = output.finish_reason
        request_id, choice = self._request.id, self._choice
        if reason is None and self._top is None and not self._silent:  # nearly every time
            events += [CoreEvent(request_id, choice, token) for token in tokens]
            return False
        if output.new_prompt_logprobs_tensors is not None:
            self._keep_prompt(output.new_prompt_logprobs_tensors)
        self._cached = self._cached or _cached(output)
        scores = _scores(output.new_logprobs, self._top, len(tokens))
        last = len(tokens) - 1
        ended = None if reason is None else self._finish(str(reason), output.stop_reason)
        for place, token in enumerate(tokens):
            finish = ended if place == last and isinstance(ended, Finish) else None
            events.append(
                CoreEvent(request_id, choice, token, finish, *scores[place], self._detail())
            )
        if reason is None or (tokens and isinstance(ended, Finish)):
            return reason is not None
        if not isinstance(ended, LmiError):
            ended = EngineError("vLLM ended the request without a token")
        events.append(self.failed(ended))
        return True

    def failed(self, error: LmiError) -> CoreEvent:
        """The event of a choice that ends with an error."""
        detail = CoreDetail(error=CoreError.of(error))
        return CoreEvent(self._request.id, self._choice, None, Finish.ERROR, detail=detail)

    def cancelled(self) -> CoreEvent:
        """The event of a choice that was cancelled."""
        return CoreEvent(self._request.id, self._choice, None, Finish.CANCELLED)

    def _finish(self, reason: str, stop: int | str | None) -> Finish | LmiError:
        if reason in (_STOP, _REPETITION):
            # The model's further end tokens come as stop tokens that the request did not name.
            return Finish.STOP if stop in self._stop_ids else Finish.EOS
        if reason == _LENGTH:
            return Finish.LENGTH
        if reason == _ABORT:
            return EngineError("vLLM aborted the request")
        if self._request.grammar is not None:
            return BadPayload("vLLM can't compile this grammar, or follow it", field="grammar")
        return EngineError("vLLM failed the request; its log says why")

    def _detail(self) -> CoreDetail | None:
        """What the first token's event carries, if anything."""
        if not self._silent:
            return None
        self._silent = False
        if not self._prompt and not self._cached:
            return None
        return CoreDetail(self._prompt, self._cached, prompt_top=self._prompt_top)

    def _keep_prompt(self, tensors: Any) -> None:
        """From (tokens - 1, 1 + most asked for): each row the token itself, then the likeliest."""
        rows = _rows(tensors.logprob_token_ids, tensors.logprobs, self._request.prompt_top)
        prompt = self._request.prompt
        scored = zip(prompt[1:], rows, strict=True)
        self._prompt = ((prompt[0], None), *[(token, own) for token, (own, _) in scored])
        if self._request.prompt_top:
            self._prompt_top = ((), *[ranked for _, ranked in rows])


Score = tuple[float | None, tuple[tuple[int, float], ...]]
"""A token's own logprob, and (id, logprob) of the most likely ones, best first."""

_NO_SCORE: Final[Score] = (None, ())


def _scores(lists: Any, top: int | None, count: int) -> Sequence[Score]:
    """The score of each token, where scores were asked for."""
    if top is None or lists is None:
        return [_NO_SCORE] * count
    return _rows(lists.logprob_token_ids, lists.logprobs, top)


def _rows(ids: Any, logprobs: Any, top: int) -> Sequence[Score]:
    """Scores out of (tokens, 1 + k) arrays, the token itself first; k may be more than `top`,
    where another request in the batch asked for more."""
    end = 1 + top
    return [
        (own[0], tuple(zip(row[1:end], own[1:end], strict=True)))
        for row, own in zip(ids.tolist(), logprobs.tolist(), strict=True)
    ]


def _cached(output: Any) -> int:
    """Prompt tokens whose KV vLLM found; where that stands differs between releases."""
    stats = getattr(output, "prefill_stats", None)
    found = getattr(output, "num_cached_tokens", 0) if stats is None else stats.num_cached_tokens
    return int(found or 0)
