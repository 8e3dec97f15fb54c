"""Small unsigned numbers out of int32 words. Pure."""

from __future__ import annotations

from math import gcd

import torch

WORD = 32


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, words) int32 -> (rows, words * (32 // bits)) uint8: as many whole numbers as fit into
    each word, the first in its lowest bits; what is left of a word is unused."""
    per_word = WORD // bits
    out = torch.empty((words.shape[0], words.shape[1], per_word), dtype=torch.uint8)
    for place in range(per_word):
        out[:, :, place] = _field(words, place * bits, bits)
    return out.flatten(1)


def unpack_stream(words: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, words) int32 -> (rows, words * 32 / bits) uint8: one stream of bits, in which a number
    may begin in one word and end in the next (GPTQ's 3 bits: 32 numbers in 3 words)."""
    period = bits // gcd(bits, WORD)  # words after which numbers and words begin together again
    if words.shape[1] % period:
        raise ValueError(f"{words.shape[1]} words hold no whole number of {bits}-bit periods")
    per_period = period * WORD // bits
    grouped = words.unflatten(1, (-1, period))
    out = torch.empty((words.shape[0], grouped.shape[1], per_period), dtype=torch.uint8)
    for place in range(per_period):
        word, shift = divmod(place * bits, WORD)
        here = min(bits, WORD - shift)
        found = _field(grouped[:, :, word], shift, here)
        if here < bits:
            found |= _field(grouped[:, :, word + 1], 0, bits - here) << here
        out[:, :, place] = found
    return out.flatten(1)


def _field(words: torch.Tensor, shift: int, bits: int) -> torch.Tensor:
    # The shift drags the sign along; the mask takes it away.
    return ((words >> shift) & ((1 << bits) - 1)).to(torch.uint8)
