"""Numbers that a measurement ends in: percentiles, spreads, and the machine they belong to."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PERCENTS: Final = (50, 90, 95, 99)


def percentiles(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """p50, p90, p95 and p99 (linear interpolation), each times `scale`; empty without values."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {}
    for percent in PERCENTS:
        place = (len(ordered) - 1) * percent / 100
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        value = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
        found[f"p{percent}"] = round(value * scale, 4)
    return found


def shown(values: Sequence[float], form: str = ",.0f") -> str:
    """A spread as text: `median (least to most)`."""
    if not values:
        return "none"
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return median
    return f"{median} ({format(min(values), form)} to {format(max(values), form)})"


def machine() -> dict[str, str]:
    """What a reader must know of the machine and the libraries."""
    facts = {
        "cpu": f"{os.cpu_count()} x {_cpu_name()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load average": " ".join([f"{load:.2f}" for load in os.getloadavg()]),
    }
    for library in ("lmi", "uvicorn", "uvloop", "httptools", "starlette", "torch", "transformers"):
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            facts[library] = "not installed"
    return facts


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of names that are known, divided by commas."""

    def parse(text: str) -> list[str]:
        given = text.split(",")
        wrong = [name for name in given if name not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
        return given

    return parse
