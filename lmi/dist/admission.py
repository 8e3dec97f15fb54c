"""Which requests can be served at all: asked before one is queued, so that none can harm the rest.

Pure: a front may ask too, from the engine's EngineInfo.
"""

from __future__ import annotations

import math
from typing import Final

from lmi.core import BadPayload, TooLong
from lmi.dist.messages import CoreRequest

MAX_CHOICES: Final = 64  # sequences of one request; more is a request for another queue's place
MAX_LOGPROBS: Final = 100  # alternatives per token: bounds the reply's size
MAX_STOP_IDS: Final = 1024  # stop_token_ids of one request


def check(request: CoreRequest, *, vocab_size: int, max_model_len: int) -> None:
    """Raise TooLong or BadPayload, naming the field, if the request can never be served."""
    _check_prompt(request.prompt, vocab_size, max_model_len)
    _check_counts(request, vocab_size)
    _check_sampling(request)


def _check_prompt(prompt: tuple[int, ...], vocab_size: int, max_model_len: int) -> None:
    if not prompt:
        raise BadPayload("the prompt has no tokens: give at least one", field="inputs")
    if len(prompt) >= max_model_len:
        raise TooLong(
            f"the prompt has {len(prompt)} tokens, but prompt and answer together may have "
            f"{max_model_len}: shorten it to at most {max_model_len - 1} tokens",
            field="inputs",
        )
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocab_size:
        raise BadPayload(
            f"token id {low if low < 0 else high} is not in the vocabulary: "
            f"expected 0 to {vocab_size - 1}",
            field="inputs",
        )


def _check_counts(request: CoreRequest, vocab_size: int) -> None:
    _within("max_new_tokens", request.max_new_tokens, 1, None)
    _within("min_new_tokens", request.min_new_tokens, 0, request.max_new_tokens)
    _within("n", request.choices, 1, MAX_CHOICES)
    _within("top_k", request.top_k, 0, None)
    if request.logprobs is not None:
        _within("logprobs", request.logprobs, 0, min(MAX_LOGPROBS, vocab_size))
    if len(request.stop_token_ids) > MAX_STOP_IDS:
        raise BadPayload(
            f"{len(request.stop_token_ids)} stop_token_ids: expected at most {MAX_STOP_IDS}",
            field="stop_token_ids",
        )
    _within("prompt_top", request.prompt_top, 0, min(MAX_LOGPROBS, vocab_size))
    for field, ids in (
        ("stop_token_ids", request.stop_token_ids),
        ("allowed_token_ids", request.allowed_token_ids),
        ("logit_bias", [token for token, _ in request.logit_bias]),
    ):
        for token in ids:
            _within(field, token, 0, vocab_size - 1)


def _check_sampling(request: CoreRequest) -> None:
    _number("temperature", request.temperature, low=0.0)
    _number("top_p", request.top_p, low=0.0, high=1.0, low_allowed=False)
    _number("min_p", request.min_p, low=0.0, high=1.0)
    _number("repetition_penalty", request.repetition_penalty, low=0.0, low_allowed=False)
    _number("presence_penalty", request.presence_penalty)
    _number("frequency_penalty", request.frequency_penalty)
    for _, bias in request.logit_bias:
        _number("logit_bias", bias)


def _within(field: str, value: int, low: int, high: int | None) -> None:
    if value < low or (high is not None and value > high):
        want = f"at least {low}" if high is None else f"{low} to {high}"
        raise BadPayload(f"{field}={value}: expected {want}", field=field)


def _number(
    field: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_allowed: bool = True,
) -> None:
    above = value >= low if low_allowed else value > low
    if math.isfinite(value) and above and value <= high:
        return
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'at least' if low_allowed else 'above'} {low:g}")
    if high < math.inf:
        bounds.append(f"at most {high:g}")
    want = " and ".join(bounds) or "a finite number"
    raise BadPayload(f"{field}={value}: expected {want}", field=field)
