"""Log probabilities as the two dialects show them.

A token is spelt as the vocabulary has it where the engine says so (it stands among the likeliest),
else by the text that it released. `bytes` of a chosen token are those that it released, so that the
bytes of an answer's tokens, joined, are the answer: a token that ends inside a character has none,
and the one that completes it has them all.
"""

from __future__ import annotations

from collections.abc import Iterable

from lmi.core import Token, TopToken
from lmi.schemas.pieces import logprob

_PART = "\ufffd"  # stands for bytes that are no character by themselves


def spelling(token: Token) -> str:
    """How a chosen token is written."""
    for each in token.top:
        if each.id == token.id:
            return each.text
    return token.text


def chat_content(tokens: Iterable[Token], most: int) -> list[dict[str, object]]:
    """The list `logprobs.content`. most: likeliest tokens that are shown of each."""
    return [
        {
            "token": spelling(token),
            "logprob": logprob(token.logprob),
            "bytes": list(token.text.encode()),
            "top_logprobs": [_top(each) for each in token.top[:most]],
        }
        for token in tokens
    ]


def _top(token: TopToken) -> dict[str, object]:
    return {
        "token": token.text,
        "logprob": logprob(token.logprob),
        "bytes": None if _PART in token.text else list(token.text.encode()),
    }


def completion_object(tokens: Iterable[Token], most: int, offset: int) -> dict[str, list[object]]:
    """The object `logprobs`. offset: where the first token's text begins, in characters.

    Below zero it begins before the text that is shown: in what the tokenizer has added.
    """
    found: dict[str, list[object]] = {
        "text_offset": [],
        "token_logprobs": [],
        "tokens": [],
        "top_logprobs": [],
    }
    for token in tokens:
        found["text_offset"].append(max(0, offset))
        found["token_logprobs"].append(logprob(token.logprob))
        found["tokens"].append(spelling(token))
        found["top_logprobs"].append(_likeliest(token, most))
        offset += len(token.text)
    return found


def _likeliest(token: Token, most: int) -> dict[str, float | None] | None:
    """The chosen token, then the likeliest others. None for a prompt's first, which has none."""
    if token.logprob is None:
        return None
    shown = {spelling(token): logprob(token.logprob)}
    for each in token.top[:most]:
        # Two ids may be spelt alike, as parts of characters are: the likelier one is shown.
        shown.setdefault(each.text, logprob(each.logprob))
    return shown
