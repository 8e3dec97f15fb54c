"""An answer counts only with the number of tokens that was asked for, whoever gives it."""

from __future__ import annotations

import json

import pytest

from benchmarks.load_dialects import DIALECTS


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_usage_at_the_end_proves_the_number_of_tokens(separators: tuple[str, str]) -> None:
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 64, "total_tokens": 69}}
    said = json.dumps(usage, separators=separators).encode()
    completions = DIALECTS["completions"]
    right, shorter, longer = (completions.proof(tokens) for tokens in (64, 6, 640))
    assert right is not None
    assert shorter is not None
    assert longer is not None
    assert right.search(said)
    assert not shorter.search(said)
    assert not longer.search(said)


def test_a_streamed_completion_is_asked_to_end_with_its_usage() -> None:
    body = DIALECTS["completions"].body("text", 64, True)
    assert body["stream_options"] == {"include_usage": True}
    assert "stream_options" not in DIALECTS["completions"].body("text", 64, False)


def test_lines_prove_an_answer_in_our_own_form() -> None:
    assert DIALECTS["lmi"].proof(64) is None
