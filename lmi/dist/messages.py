"""What goes into LMI-Dist's core and what comes out: ids and numbers only, no text, no torch.

The same structs cross a process border as msgpack arrays, so their field order is the wire's and
new fields go to the end. A `CoreEvent` is made once per generated token: everything rare sits in
its `detail`.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from lmi.core import (
    BadPayload,
    EngineError,
    Finish,
    Grammar,
    LmiError,
    ModelError,
    OutOfMemory,
    RequestError,
    TooLong,
    UnknownAdapter,
)

_ERRORS: Final[dict[str, type[LmiError]]] = {
    kind.__name__: kind
    for kind in (
        EngineError,
        OutOfMemory,
        RequestError,
        BadPayload,
        TooLong,
        UnknownAdapter,
        ModelError,
    )
}


class CoreRequest(Struct, frozen=True, array_like=True, gc=False):
    """One request at token level; the meanings are those of `lmi.core.Sampling`.

    prompt: token ids, at least one. choices: sequences to generate, numbered from 0 (the larger of
    n and best_of). stop_token_ids end a choice with STOP, the model's own end tokens with EOS; with
    ignore_eos the latter are tokens like any other. While fewer than min_new_tokens exist, neither
    kind can be chosen. logprobs: None for none, 0 for the chosen token's, k for the k most likely
    as well. From prompt_top on: only for a core that says it honours them (`HONOURED`).
    """

    id: int
    prompt: tuple[int, ...]
    max_new_tokens: int = 30
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: bool = False
    choices: int = 1
    prompt_top: int = 0
    grammar: Grammar | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    adapter: str | None = None


class CoreError(Struct, frozen=True, array_like=True, gc=False):
    """An error of `lmi.core`, by the name of its class, for the way across a process border."""

    kind: str
    message: str
    field: str | None = None

    @classmethod
    def of(cls, error: LmiError) -> CoreError:
        """Describe an error by the nearest of its classes that is known here, or as EngineError."""
        names = (kind.__name__ for kind in type(error).__mro__)
        kind = next((name for name in names if name in _ERRORS), EngineError.__name__)
        field = error.field if isinstance(error, RequestError) else None
        return cls(kind, str(error), field)

    def exception(self) -> LmiError:
        """The error again, of its own class."""
        kind = _ERRORS.get(self.kind, EngineError)
        if issubclass(kind, RequestError):
            return kind(self.message, field=self.field)
        return kind(self.message)


class CoreDetail(Struct, frozen=True, array_like=True, gc=False):
    """The rare parts of an event.

    prompt: (id, logprob) of each prompt token, the first with None, on the first event with a token
    of choice 0 of a request with prompt_logprobs. cached_tokens: prompt tokens whose KV was found
    in the prefix cache, on the first event of a choice. error: set if and only if the event's
    finish is ERROR. prompt_top: beside prompt, (id, logprob) of the `CoreRequest.prompt_top` most
    likely tokens at each place, best first, none at the first.
    """

    prompt: tuple[tuple[int, float | None], ...] = ()
    cached_tokens: int = 0
    error: CoreError | None = None
    prompt_top: tuple[tuple[tuple[int, float], ...], ...] = ()


class CoreEvent(Struct, frozen=True, array_like=True, gc=False):
    """One token of one choice, or an end without a token.

    token: None only where finish is CANCELLED or ERROR. The token that ends a choice (EOS, STOP) is
    carried too. logprob: natural logarithm of the probability under the raw logits. top: (id,
    logprob) of the `CoreRequest.logprobs` most likely tokens, best first. finish: set on the last
    event of a choice, and on no other.
    """

    request_id: int
    choice: int
    token: int | None
    finish: Finish | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    detail: CoreDetail | None = None


class CoreStats(Struct, frozen=True, array_like=True, gc=False):
    """The load now, and counts since the start.

    running, waiting: choices. chunks: prefill segments that did not reach the end of their
    sequence. preemptions: times a choice was put back to be computed again. cancelled: choices that
    ended by cancel. reused_tokens: those whose KV was found (in the prefix cache, or at another
    choice of the request) and not computed. guessed_tokens, accepted_tokens: by speculation, and
    those of them that came true.
    """

    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    preemptions: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    chunks: int = 0
    cancelled: int = 0
    reused_tokens: int = 0
    guessed_tokens: int = 0
    accepted_tokens: int = 0
