"""For programs that a launcher runs once per rank (mpirun, torchrun, deepspeed): the first serves.

The process of rank 0 loads an engine with `ProcessEngine.load`, which recognises the others; each
of the others calls `follow` instead, and needs to know nothing of the model: it is told.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from lmi.dist.parallel.meeting import launched_place


def is_follower(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process as a rank other than the first."""
    place = launched_place(environment)
    return place is not None and place.rank > 0


def follow(environment: Mapping[str, str] = os.environ) -> int:
    """Be a rank of the engine that rank 0's process loads; returns the exit code of the process.

    Returns when the engine is closed (0) or dead (1). The process has nothing else to do: SIGINT
    and SIGTERM are ignored from now on, since rank 0's process drains first.
    """
    from lmi.dist.worker import main

    place = launched_place(environment)
    assert place is not None, "see is_follower"
    return main(["--join", place.name])
