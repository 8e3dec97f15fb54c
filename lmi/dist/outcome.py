"""What happened to a sequence, in the words of `lmi.dist.messages`."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from lmi.core import Finish, LmiError
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent
from lmi.dist.sampling import Sampled
from lmi.dist.sequence import Sequence


def finish_of(sequence: Sequence, token: int, eos_ids: AbstractSet[int]) -> Finish:
    """Why `token` is the sequence's last. eos_ids: the model's own end tokens."""
    if token not in sequence.end_ids:
        return Finish.LENGTH
    request = sequence.request
    own = token in eos_ids and not request.ignore_eos
    return Finish.EOS if own or token not in request.stop_token_ids else Finish.STOP


def detail_of(sequence: Sequence) -> CoreDetail | None:
    """What is said with the first token of an answer."""
    if sequence.prompt_logprobs is None:
        return CoreDetail(cached_tokens=sequence.cached) if sequence.cached else None
    logprobs = [None, *sequence.prompt_logprobs]
    prompt = tuple(zip(sequence.request.prompt, logprobs, strict=True))
    return CoreDetail(prompt, sequence.cached or 0)


def token_event(sequence: Sequence, result: Sampled, eos_ids: AbstractSet[int]) -> CoreEvent:
    """Append a sampled token to its sequence; its event, with a finish where it is the last.

    result: one with a token. eos_ids: the model's own end tokens.
    """
    token, tokens = result.token, sequence.tokens
    assert token is not None, "without finite logits there is no token"
    detail = detail_of(sequence) if len(tokens) == sequence.prompt_len else None
    tokens.append(token)
    finish = None
    if token in sequence.end_ids or len(tokens) >= sequence.stop_at:
        finish = finish_of(sequence, token, eos_ids)
    return CoreEvent(
        sequence.request.id,
        sequence.choice,
        token,
        finish,
        result.logprob,
        result.top,
        detail,
    )


def error_event(sequence: Sequence, error: LmiError) -> CoreEvent:
    """The sequence failed."""
    detail = CoreDetail(error=CoreError.of(error))
    return CoreEvent(sequence.request.id, sequence.choice, None, Finish.ERROR, detail=detail)


def cancelled_event(sequence: Sequence) -> CoreEvent:
    """Somebody cancelled the sequence."""
    return CoreEvent(sequence.request.id, sequence.choice, None, Finish.CANCELLED)
