"""Texts as runs of token ids, all of one length: no padding, so that nothing false is measured.

The texts are joined, so that short ones count too, and windows are taken at even distances from
what that gives: the whole of the data is looked at, and the same data gives the same windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from lmi.core import ModelError

FEWEST: Final = 4  # fewer windows say too little about a channel's largest value


class Encoder(Protocol):
    """The part of `lmi.text.Tokenizer` that is needed here."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with the special tokens that the model expects, or without."""


def windows(tokenizer: Encoder, texts: Iterable[str], count: int, length: int) -> list[list[int]]:
    """At most `count` runs of exactly `length` token ids, which do not overlap.

    Each begins with the special tokens that the tokenizer puts before a text, because a model's
    largest activations often belong to these. Fewer than `count` come of data that holds no more;
    fewer than 4 (or `count`, where that is less) raise ModelError.
    """
    before = _before(tokenizer)
    body = length - len(before)
    if count < 1 or body < 1:
        raise ValueError(f"{count} windows of {length} tokens: expected 1 or more, each longer")
    stream: list[int] = []
    for text in texts:
        stream += tokenizer.encode(f"{text}\n", add_special_tokens=False)
    held = len(stream) // body
    fewest = min(FEWEST, count)
    if held < fewest:
        raise ModelError(
            f"the calibration data holds {len(stream)} tokens: expected {fewest * body} or more, "
            f"which are {fewest} windows of {length}"
        )
    return [before + stream[start : start + body] for start in _starts(len(stream), body, count)]


def _before(tokenizer: Encoder) -> list[int]:
    """The special tokens that stand before a text."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    return []


def _starts(tokens: int, body: int, count: int) -> Sequence[int]:
    """Where windows begin, spread over all tokens; at most as many as fit side by side."""
    used = min(count, tokens // body)
    return [index * (tokens - body) // max(1, used - 1) for index in range(used)]
