"""What the echo engine says: a tokenizer with no vocabulary, and whole answers made in advance.

A token is up to three bytes of UTF-8 and its id is these bytes as a number, so that any text and
any id can be encoded and decoded without state, and characters of more than one byte fall across
tokens as they do with a byte-level BPE. An answer repeats the prompt's tokens (or those of a fixed
text) over and over: the tokens of one period are made once and shared by all its repeats, which is
what makes a token of this engine so cheap.
"""

from __future__ import annotations

import codecs
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lmi.core import Finish, Sampling, Token, TopToken
from lmi.text import StopMatcher, StopStrings

BYTES_PER_TOKEN: Final = 3
# The ids of tokens of 1, 2 and 3 bytes start here; the end-of-sequence token comes after the last.
_FIRST_ID: Final = (0, 256, 256 + 256**2)
EOS_ID: Final = 256 + 256**2 + 256**3
VOCAB_SIZE: Final = EOS_ID + 1
EOS_TEXT: Final = "</s>"
# Each place in a ranking is half as likely as the one before it: together less than 1.
_LOG_HALF: Final = -math.log(2)


def encode(text: str) -> tuple[int, ...]:
    """The ids of a text: its UTF-8 bytes, three to a token. A lone surrogate becomes a `?`."""
    data = text.encode("utf-8", errors="replace")
    chunks = [data[i : i + BYTES_PER_TOKEN] for i in range(0, len(data), BYTES_PER_TOKEN)]
    return tuple([_FIRST_ID[len(chunk) - 1] + int.from_bytes(chunk, "big") for chunk in chunks])


def decode(ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
    """The text of these ids; what is no UTF-8 becomes U+FFFD, as in byte-level tokenizers."""
    eos = _eos_bytes(skip_special_tokens)
    data = b"".join([eos if token_id == EOS_ID else _token_bytes(token_id) for token_id in ids])
    return data.decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Answer:
    """All tokens of one choice, one entry per step, and why it ends with the last."""

    tokens: Sequence[tuple[Token, ...]]
    finish: Finish


def answer(
    period: Sequence[int], length: int, sampling: Sampling, *, eos_after: int | None
) -> Answer:
    """Repeat `period` (at least one id) until there are `length` tokens (at least 1) or it stops.

    eos_after: an end-of-sequence token comes after so many tokens, None for never. Honours stop
    strings and ids, min_new_tokens, ignore_eos, skip_special_tokens, include_stop_text and
    logprobs. A token that ends the answer is counted but says nothing, unless include_stop_text
    asks for it. Raises BadPayload for stop strings that can't be served.
    """
    ids = list(itertools.islice(itertools.cycle(period), length))
    if eos_after is not None and not sampling.ignore_eos:
        end = max(eos_after, sampling.min_new_tokens)
        ids[end:] = [EOS_ID] * (end < length)
    end, finish = _end_by_id(ids, sampling)
    del ids[end:]
    mute_last = finish is not Finish.LENGTH and not sampling.include_stop_text
    # The periods in the middle are alike, text and all: one that holds only continuation bytes
    # leaves no character open, and any other leaves open what its own last bytes began.
    repeats = max(0, (len(ids) - 1) // len(period) - 2)
    second = slice(len(period), 2 * len(period))
    del ids[second.start : second.start + repeats * len(period)]
    pieces = list(_pieces(ids, sampling.skip_special_tokens, mute_last))
    if not sampling.stop:
        tokens = [(_token(*pair, sampling.logprobs),) for pair in zip(ids, pieces, strict=True)]
        tokens[second.start : second.start] = tokens[second] * repeats
        return Answer(tokens, finish)
    ids[second.start : second.start] = ids[second] * repeats
    pieces[second.start : second.start] = pieces[second] * repeats
    stopped, pieces = _cut_at_stop(pieces, sampling)
    tokens = [(_token(*pair, sampling.logprobs),) for pair in zip(ids, pieces, strict=False)]
    return Answer(tokens, Finish.STOP if stopped else finish)


def prompt_tokens(ids: Sequence[int], logprobs: int | None) -> tuple[Token, ...]:
    """The prompt's tokens with made-up logprobs; the first has none."""
    pieces = _pieces(ids, skip_special_tokens=False, mute_last=False)
    first, *others = zip(ids, pieces, strict=True)
    return (
        Token(*first, special=first[0] == EOS_ID),
        *[_token(*pair, logprobs or 0) for pair in others],
    )


def _token_bytes(token_id: int) -> bytes:
    length = 1 if token_id < _FIRST_ID[1] else 2 if token_id < _FIRST_ID[2] else 3
    return (token_id - _FIRST_ID[length - 1]).to_bytes(length, "big")


def _eos_bytes(skip_special_tokens: bool) -> bytes:
    return b"" if skip_special_tokens else EOS_TEXT.encode()


def _token(token_id: int, text: str, logprobs: int | None) -> Token:
    special = token_id == EOS_ID
    if logprobs is None:
        return Token(token_id, text, special=special)
    ranked = [(token_id + place) % VOCAB_SIZE for place in range(logprobs)]
    top = [
        TopToken(other, decode([other], skip_special_tokens=False), place * _LOG_HALF)
        for place, other in enumerate(ranked, start=1)
    ]
    return Token(token_id, text, _LOG_HALF, tuple(top), special)


def _end_by_id(ids: Sequence[int], sampling: Sampling) -> tuple[int, Finish]:
    """How many tokens there are, and why it ends there, as far as ids alone decide."""
    ends = dict.fromkeys(sampling.stop_token_ids, Finish.STOP)
    if not sampling.ignore_eos:
        ends[EOS_ID] = Finish.EOS
    if not ends.keys().isdisjoint(ids):
        for place, token_id in enumerate(ids, start=1):
            if token_id in ends and place > sampling.min_new_tokens:
                return place, ends[token_id]
    return len(ids), Finish.LENGTH


def _pieces(ids: Sequence[int], skip_special_tokens: bool, mute_last: bool) -> Iterator[str]:
    """The text that each id releases; the last also releases what is left of an open character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    eos = _eos_bytes(skip_special_tokens)
    last = len(ids) - 1
    for place, token_id in enumerate(ids):
        mute = mute_last and place == last
        data = b"" if mute else eos if token_id == EOS_ID else _token_bytes(token_id)
        yield decoder.decode(data, place == last)


def _cut_at_stop(pieces: Sequence[str], sampling: Sampling) -> tuple[bool, list[str]]:
    """Hold back what may become a stop string; end with the token that completes the first one."""
    matcher = StopMatcher(StopStrings(sampling.stop), include=sampling.include_stop_text)
    out: list[str] = []
    for place, piece in enumerate(pieces):
        text, stopped = matcher.push(piece, armed=place >= sampling.min_new_tokens)
        out.append(text)
        if stopped:
            return True, out
    out[-1] += matcher.flush()
    return False, out
