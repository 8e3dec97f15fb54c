"""The front half of an engine with a core: requests with text become core requests, core events
become deltas.

It runs in the caller's process, off the core's critical path, wherever the core lives: `Engine` has
it in the same process, `ProcessEngine` in another. What a core can't do is refused here, so that
nothing that a client asked for is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from lmi.core import (
    OPTIONAL,
    Adapter,
    BadPayload,
    Delta,
    EngineError,
    EngineInfo,
    GenerationRequest,
    Sampling,
    UnknownAdapter,
)
from lmi.dist import admission
from lmi.dist.live import Ending, Live, live_request
from lmi.dist.messages import CoreEvent, CoreRequest
from lmi.text import Tokenizer

# Counts above this mean "no limit" for any model, and still fit a message.
_COUNT_MAX: Final = 2**31 - 1
_SEEDS: Final = range(-(2**63), 2**64)


class Front:
    """The live requests of one core.

    honours: those of `lmi.core.OPTIONAL` that it takes. adapters: those that are registered now, as
    the engine says.
    """

    def __init__(
        self, tokenizer: Tokenizer, info: EngineInfo, honours: frozenset[str] = frozenset()
    ) -> None:
        self.adapters: dict[str, Adapter] = {}
        self._tokenizer = tokenizer
        self._info = info
        self._lacks = [name for name in OPTIONAL if name not in honours]
        self._live: dict[int, Live] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._live

    def open(self, request: GenerationRequest) -> CoreRequest:
        """Make a request live, and say it in the core's terms. Raises RequestError."""
        if request.id in self._live:
            raise EngineError(f"request id {request.id} is in use")
        if request.adapter is not None and request.adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise UnknownAdapter(
                f"adapter {request.adapter!r} is not registered; registered: {known}",
                field="adapter",
            )
        for name in self._lacks:
            if getattr(request.sampling, name):
                raise BadPayload(f"{name}: {self._info.engine} has nothing like it", field=name)
        core_request = _core_request(request, self._prompt(request))
        admission.check(
            core_request,
            vocab_size=self._info.vocab_size,
            max_model_len=self._info.max_model_len,
        )
        self._live[request.id] = live_request(
            request, core_request.prompt, self._tokenizer, core_request.choices
        )
        return core_request

    def forget(self, request_id: int) -> None:
        """Drop a request that the core refused."""
        self._live.pop(request_id, None)

    def translate(self, events: Iterable[CoreEvent], stopped: list[tuple[int, int]]) -> list[Delta]:
        """The deltas of what the core did.

        Appends to `stopped` each choice (request id, choice) that a stop string ended, while the
        core goes on with it: cancel it there. Whatever the core still says of it is dropped.
        """
        deltas: list[Delta] = []
        live = self._live
        for event in events:
            request_id = event.request_id
            request = live.get(request_id)
            if request is None:
                continue
            ending = request.take(event, deltas)
            if ending is Ending.NOTHING:
                continue
            if event.finish is None:
                stopped.append((request_id, event.choice))
            if ending is Ending.REQUEST:
                del live[request_id]
        return deltas

    def _prompt(self, request: GenerationRequest) -> tuple[int, ...]:
        prompt = request.prompt
        if isinstance(prompt, str):
            _check_text(prompt)
            prompt = tuple(
                self._tokenizer.encode(prompt, add_special_tokens=request.add_special_tokens)
            )
        keep = request.truncate_prompt_tokens
        if keep is None:
            return prompt
        if keep < 1:
            raise BadPayload(f"truncate={keep}: expected at least 1", field="truncate")
        return prompt[-keep:]


def _check_text(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise BadPayload(
            f"the prompt is no valid text: a lone surrogate at character {error.start}",
            field="inputs",
        ) from error


def _core_request(request: GenerationRequest, prompt: Sequence[int]) -> CoreRequest:
    sampling = request.sampling
    for name in ("n", "best_of"):
        if getattr(sampling, name) < 1:
            raise BadPayload(f"{name}={getattr(sampling, name)}: expected at least 1", field=name)
    if sampling.seed is not None and sampling.seed not in _SEEDS:
        raise BadPayload(f"seed={sampling.seed}: expected a number of 64 bits", field="seed")
    return CoreRequest(
        id=request.id,
        prompt=tuple(prompt),
        max_new_tokens=min(sampling.max_new_tokens, _COUNT_MAX),
        min_new_tokens=min(sampling.min_new_tokens, _COUNT_MAX),
        temperature=sampling.temperature,
        top_k=min(sampling.top_k, _COUNT_MAX),
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
        logprobs=_logprobs(sampling),
        prompt_logprobs=sampling.prompt_logprobs,
        choices=max(sampling.n, sampling.best_of),
        prompt_top=sampling.prompt_top if sampling.prompt_logprobs else 0,
        grammar=sampling.grammar,
        logit_bias=sampling.logit_bias,
        allowed_token_ids=sampling.allowed_token_ids,
        bad_words=sampling.bad_words,
        adapter=request.adapter,
    )


def _logprobs(sampling: Sampling) -> int | None:
    """Ranking needs the chosen tokens' logprobs, also where the client does not."""
    if sampling.logprobs is None and sampling.best_of > sampling.n:
        return 0
    return sampling.logprobs
