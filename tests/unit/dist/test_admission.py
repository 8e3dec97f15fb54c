"""What can never be served is refused before it is queued, by name."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import BadPayload, TooLong
from lmi.dist.admission import MAX_CHOICES, MAX_LOGPROBS, MAX_STOP_IDS, check
from lmi.dist.messages import CoreRequest


def ask(prompt: tuple[int, ...] = (1, 2, 3), **fields: Any) -> None:
    check(CoreRequest(1, prompt, **fields), vocab_size=100, max_model_len=20)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ()}, "inputs"),
        ({"prompt": (100,)}, "inputs"),
        ({"prompt": (-1,)}, "inputs"),
        ({"prompt": (2**70,)}, "inputs"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"min_new_tokens": -1}, "min_new_tokens"),
        ({"min_new_tokens": 31}, "min_new_tokens"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 2.0}, "min_p"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": -math.inf}, "repetition_penalty"),
        ({"presence_penalty": math.inf}, "presence_penalty"),
        ({"frequency_penalty": -math.inf}, "frequency_penalty"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": MAX_LOGPROBS + 1}, "logprobs"),
        ({"stop_token_ids": (100,)}, "stop_token_ids"),
        ({"stop_token_ids": (1,) * (MAX_STOP_IDS + 1)}, "stop_token_ids"),
        ({"choices": 0}, "n"),
        ({"choices": MAX_CHOICES + 1}, "n"),
    ]
    + [
        ({name: math.nan}, name)
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty")
    ],
)
def test_an_impossible_value_is_refused_by_its_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadPayload) as caught:
        ask(**fields)
    assert caught.value.field == field
    assert "expected" in str(caught.value) or "give" in str(caught.value)


def test_a_prompt_that_leaves_no_room_for_a_token_is_too_long() -> None:
    ask((1,) * 19)
    with pytest.raises(TooLong, match=r"20 tokens.*at most 19 tokens"):
        ask((1,) * 20)


def test_an_answer_longer_than_the_context_is_not_refused() -> None:
    ask(max_new_tokens=10**9)


def test_the_limits_themselves_are_served() -> None:
    ask(
        (0, 99),
        temperature=0.0,
        top_k=10**12,
        top_p=1e-300,
        min_p=1.0,
        choices=MAX_CHOICES,
        logprobs=MAX_LOGPROBS,
        stop_token_ids=(99,) * MAX_STOP_IDS,
        seed=-(2**63),
    )


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_new_tokens": st.integers(),
            "min_new_tokens": st.integers(),
            "temperature": st.floats(),
            "top_k": st.integers(),
            "top_p": st.floats(),
            "min_p": st.floats(),
            "repetition_penalty": st.floats(),
            "presence_penalty": st.floats(),
            "frequency_penalty": st.floats(),
            "logprobs": st.none() | st.integers(),
            "choices": st.integers(),
            "stop_token_ids": st.lists(st.integers()).map(tuple),
            "prompt": st.lists(st.integers()).map(tuple),
        },
    )
)
def test_any_request_is_served_or_refused_and_nothing_else(fields: dict[str, Any]) -> None:
    with suppress(BadPayload, TooLong):
        ask(**fields)
