"""Percentiles of few values, and changes in percent."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in rising order, at least one; interpolated linearly between neighbours."""
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def change(now: float, before: float) -> str:
    """As `+150 %`."""
    return f"{100 * (now / before - 1):+.0f} %"
