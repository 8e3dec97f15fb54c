"""How fast this machine reads memory with so many threads: the bound of decoding at concurrency 1.

Each thread reduces its part of an array much larger than the processor's caches; the reductions are
numpy's vectorised ones, which keep up with memory and hold no lock. The best of several passes of
the fastest reduction: a bound, not a mean.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

NUMBERS: Final = 1 << 27  # of float32: 512 MiB, many times the caches
PASSES: Final = 5
REDUCTIONS: Final[tuple[Callable[[Any], Any], ...]] = (np.min, np.max, np.bitwise_or.reduce)


def read_bandwidth(threads: int, numbers: int = NUMBERS, passes: int = PASSES) -> float:
    """Bytes per second."""
    data = np.ones(numbers, np.int32)
    best = 0.0
    for reduction in REDUCTIONS:
        for _ in range(passes):
            best = max(best, data.nbytes / _seconds(reduction, np.array_split(data, threads)))
    return best


def _seconds(reduction: Callable[[Any], Any], parts: list[Any]) -> float:
    workers = [threading.Thread(target=reduction, args=(part,)) for part in parts]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began
