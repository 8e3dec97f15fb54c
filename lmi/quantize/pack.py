"""Low-bit weights as the tensors of GPTQ's and AWQ's files. Pure.

The layouts are those that `lmi.dist.quantized` reads; its `bits` says how numbers lie in words.
"""

from __future__ import annotations

from math import gcd
from typing import Final

import torch

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.bits import WORD

_MIDDLE_OF_BYTE: Final = 128
# The output that stands at each place of one of AWQ's words.
_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)


def gptq_tensors(weight: LowBitWeight) -> dict[str, torch.Tensor]:
    """qweight, qzeros (less one: version 1 of the format), scales and g_idx of a layer."""
    return {
        "qweight": pack_stream(_numbers(weight), weight.bits).T.contiguous(),
        "qzeros": pack_stream(_zeros(weight).T - 1, weight.bits),
        "scales": weight.scales.T.half().contiguous(),
        "g_idx": weight.groups().int(),
    }


def awq_tensors(weight: LowBitWeight) -> dict[str, torch.Tensor]:
    """qweight, qzeros and scales of a layer in the layout "gemm"."""
    return {
        "qweight": _awq_words(_numbers(weight).T),
        "qzeros": _awq_words(_zeros(weight).T),
        "scales": weight.scales.T.half().contiguous(),
    }


def pack_stream(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, numbers) of whole numbers from 0 -> (rows, numbers * bits / 32) int32: one stream of
    bits. Raises ValueError where the numbers fill no whole words."""
    period = WORD // gcd(bits, WORD)  # numbers after which they begin with a word again
    if rows.shape[1] % period:
        raise ValueError(f"{rows.shape[1]} numbers of {bits} bits fill no whole words")
    grouped = rows.to(torch.int64).unflatten(1, (-1, period))
    words = torch.zeros((*grouped.shape[:2], period * bits // WORD), dtype=torch.int64)
    for place in range(period):
        word, shift = divmod(place * bits, WORD)
        words[:, :, word] |= grouped[:, :, place] << shift
        if shift + bits > WORD:
            words[:, :, word + 1] |= grouped[:, :, place] >> (WORD - shift)
    return _as_int32(words.flatten(1))


def _awq_words(rows: torch.Tensor) -> torch.Tensor:
    ordered = rows.unflatten(1, (-1, len(_AWQ_ORDER)))[:, :, list(_AWQ_ORDER)]
    return pack_stream(ordered.flatten(1), 4)


def _numbers(weight: LowBitWeight) -> torch.Tensor:
    """(out, in), from 0."""
    values = weight.values.to(torch.int64)
    return values + _MIDDLE_OF_BYTE if weight.bits == 8 else values


def _zeros(weight: LowBitWeight) -> torch.Tensor:
    """(out, groups), on the same scale."""
    if weight.zeros is None:
        return torch.full(weight.scales.shape, 1 << (weight.bits - 1))
    zeros = weight.zeros.to(torch.int64)
    return zeros + _MIDDLE_OF_BYTE if weight.bits == 8 else zeros


def _as_int32(words: torch.Tensor) -> torch.Tensor:
    """The lower 32 bits, as int32 has them."""
    low = words & ((1 << WORD) - 1)
    return torch.where(low >= 1 << (WORD - 1), low - (1 << WORD), low).to(torch.int32)
