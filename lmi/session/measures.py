"""Numbers that a session counts while it works; a front shows them.

Plain lists and additions: they are touched for every step of every request, from one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

LATENCY_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0
)  # fmt: skip


class Histogram:
    """Counts of values by upper bound. bounds: ascending; one more bucket holds the rest."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Measures:
    """Of one session, since the process began; times are in seconds.

    outcomes: requests that ended, by "ok", "error" and "cancelled". refused: by HTTP status.
    """

    __slots__ = (
        "accepted",
        "completion_tokens",
        "duration",
        "engine_deaths",
        "first_token",
        "inter_token",
        "outcomes",
        "prompt_tokens",
        "refused",
    )

    def __init__(self) -> None:
        self.first_token = Histogram()
        self.inter_token = Histogram()
        self.duration = Histogram()
        self.accepted = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.engine_deaths = 0
        self.outcomes: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
