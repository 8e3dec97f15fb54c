"""What low-bit weights may weigh beside bfloat16's, and which rows break it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BFLOAT16_BYTES: Final = 2

# By bits of a weight: bytes of the linear layers in memory over those in bfloat16, at most.
LIMITS: Final[Mapping[int, float]] = {3: 0.26, 4: 0.32, 8: 0.55}


def share(process: int, base: int, numbers: int) -> float:
    """The linear layers' bytes over those in bfloat16, from two processes.

    process, base: bytes that the same engine holds once it has loaded the low-bit model, and the
    plain one in bfloat16; all else that they hold is alike. numbers: in the linear layers.
    """
    dense = numbers * BFLOAT16_BYTES
    return 1 + (process - base) / dense


def beyond(name: str, bits: int, found: float) -> str | None:
    """Why a row breaks its limit; None where it does not, or where there is none."""
    limit = LIMITS.get(bits)
    if limit is None or found <= limit:
        return None
    return f"{name}: {found:.3f} of bfloat16's bytes for {bits} bits, at most {limit}"
