"""Bytes that this process holds: what it wrote itself, and what it keeps of weight files."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from pathlib import Path
from typing import Final

KIB: Final = 1024
WEIGHTS: Final = ".safetensors"
SMAPS: Final = Path("/proc/self/smaps")


def held(lines: Iterable[str] | None = None) -> int:
    """Anonymous memory, and resident pages of mapped weight files.

    Libraries' code is not in it. What the allocator keeps without need is given back first. lines:
    of a smaps file, this process's by default.
    """
    if lines is None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        lines = SMAPS.read_text().splitlines()
    total, of_weights = 0, False
    for line in lines:
        name, _, value = line.partition(":")
        if name == ("Rss" if of_weights else "Anonymous"):
            total += int(value.split()[0]) * KIB
        elif "-" in name.split(" ")[0]:  # a mapping's addresses begin its lines
            of_weights = line.rstrip().endswith(WEIGHTS)
    return total
