"""Keep large bodies out of the heap, so that what they took goes back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_LARGE: Final = 128 * 1024  # bytes; glibc's own first value


def give_large_blocks_back() -> None:
    """Fix glibc's mmap threshold; does nothing where the C library is another one.

    Left alone it grows to the largest block ever freed (up to 32 MiB). From then on bodies of that
    size live in the heap, and small things that outlive them keep it from shrinking.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
