"""8-bit floating point, e4m3: a sign, four bits of exponent, three of mantissa.

The numbers of torch.float8_e4m3fn: at most 448, no infinity, one NaN of each sign (Micikevicius et
al., "FP8 formats for deep learning", 2022).
"""

from __future__ import annotations

from typing import Final

import torch

FLOAT8: Final = torch.float8_e4m3fn
LARGEST: Final = 448.0

_MAGNITUDE: Final = 0x7F  # of a code, without its sign; all ones are the NaN


def narrow(numbers: torch.Tensor) -> torch.Tensor:
    """The nearest e4m3 numbers, ties to even; what is larger than 448 becomes 448, NaN stays."""
    return numbers.float().clamp(-LARGEST, LARGEST).to(FLOAT8)


def holds_nan(numbers: torch.Tensor) -> bool:
    """Whether one of these e4m3 numbers is NaN."""
    return bool(((numbers.view(torch.uint8) & _MAGNITUDE) == _MAGNITUDE).any())
