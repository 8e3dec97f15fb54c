"""Watches a server from outside: the memory of its processes, and its own numbers."""

from __future__ import annotations

import asyncio
import math
import re
import statistics
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil

MIB: Final = 2**20
SAMPLE_SECONDS: Final = 1.0
_SAMPLE_LINE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


@dataclass(slots=True)
class Memory:
    """Resident memory in MiB, one sample a second; engine: of all child processes together."""

    server: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)

    async def watch(self, pid: int, stop: asyncio.Event) -> None:
        """Sample until told to stop, or until the process is gone."""
        process = psutil.Process(pid)
        while not stop.is_set():
            children = process.children(recursive=True)
            self.server.append(process.memory_info().rss / MIB)
            self.engine.append(sum([child.memory_info().rss for child in children]) / MIB)
            try:
                async with asyncio.timeout(SAMPLE_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue


def growth(samples: Sequence[float], baseline_second: float) -> float:
    """How much larger the memory is at the end than at `baseline_second`, as a share.

    Medians of the 30 seconds around the one and before the other, or of what there is.
    """
    at = int(baseline_second / SAMPLE_SECONDS)
    before = statistics.median(samples[max(0, at - 15) : at + 15])
    after = statistics.median(samples[-30:])
    return after / before - 1


def metrics(port: int) -> dict[str, float]:
    """The server's numbers by name and labels other than the model: `ended{outcome="ok"}`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE_LINE.match(line)
        if sample is None:
            continue
        name, labels, value = sample.groups()
        rest = [
            each for each in (labels or "").split(",") if each and not each.startswith("model=")
        ]
        key = f"{name}{{{','.join(rest)}}}" if rest else name
        found[key] = found.get(key, 0.0) + float(value)
    return found


async def idle_metrics(port: int, seconds: float) -> dict[str, float]:
    """The numbers once nothing runs, waits or holds a KV block, or the last ones."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = await asyncio.to_thread(metrics, port)
        busy = sum([found.get(name, math.nan) for name in BUSY])
        if busy == 0 or loop.time() > deadline:
            return found
        await asyncio.sleep(0.1)


BUSY: Final = ("lmi_requests_running", "lmi_requests_waiting", "lmi_kv_blocks_used")
