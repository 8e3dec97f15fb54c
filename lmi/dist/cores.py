"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import Final

_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")


def available_cores(limit: Path = _CGROUP_LIMIT) -> int:
    """The cores of the affinity mask, less where a container's quota is smaller.

    limit: the cgroup's `cpu.max`, "<quota or max> <period>" in microseconds.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = limit.read_text().split()
    except (OSError, ValueError):  # no cgroup of version 2: no quota that we could know
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, ceil(int(quota) / int(period))))
