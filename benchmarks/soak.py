"""Ten minutes of mixed, rude traffic: `python -m benchmarks.soak` (or `make soak`).

Clients stream, wait for whole answers, send lists, long prompts, nonsense and half bodies, and
leave whenever they like. Exit code 1, with the reasons, unless
- every request that was not left got exactly one answer, its own, and a right one;
- the server counted the same: each accepted request ended once;
- no KV block is held when the last client is gone;
- resident memory at the end is within 2 % of that at minute 3 (in runs of 5 minutes or more).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.figures import machine
from benchmarks.serving import Served, free_port, lmi_serve, served
from benchmarks.soak_client import Client, Tally
from benchmarks.soak_watch import BUSY, Memory, growth, idle_metrics

BASELINE_SECONDS: Final = 180.0
SHORTEST_JUDGED_SECONDS: Final = 300.0
ALLOWED_GROWTH: Final = 0.02
IDLE_SECONDS: Final = 15.0  # for the last cancelled requests to end
DEMO: Final = Path(__file__).parent.parent / "examples" / "demo"


@dataclass(slots=True)
class Soaked:
    """What happened. metrics: the server's own numbers at the end."""

    seconds: float
    tally: Tally
    memory: Memory
    metrics: dict[str, float] = field(default_factory=dict)

    def wrong(self) -> list[str]:
        """Everything that should not have been."""
        found = list(self.tally.violations)
        hidden = self.tally.violation_count - len(found)
        if hidden:
            found.append(f"and {hidden} more violations")
        return found + self._miscounted() + self._held() + self._grown()

    def _miscounted(self) -> list[str]:
        ok, failed, cancelled = [
            self.metrics.get(f'lmi_requests_ended_total{{outcome="{outcome}"}}', 0)
            for outcome in ("ok", "error", "cancelled")
        ]
        accepted = self.metrics.get("lmi_requests_accepted_total", 0)
        answered, left = self.tally.answered, self.tally.left
        found = []
        if accepted != ok + failed + cancelled:
            found.append(f"{accepted:g} accepted, but {ok:g} + {failed:g} + {cancelled:g} ended")
        if failed:
            found.append(f"{failed:g} accepted requests failed")
        if not answered <= ok <= answered + left:
            found.append(f"{ok:g} answers counted by the server, {answered} by its clients")
        if not answered <= accepted <= answered + left:
            found.append(f"{accepted:g} accepted, {answered} answered and {left} left")
        for status, count in self.tally.refused.items():
            counted = self.metrics.get(f'lmi_requests_refused_total{{status="{status}"}}', 0)
            if counted != count:
                found.append(f"status {status}: {counted:g} by the server, {count} by its clients")
        return found

    def _held(self) -> list[str]:
        return [
            f"{name} is {self.metrics.get(name, 'missing')} with no client left"
            for name in BUSY
            if self.metrics.get(name) != 0
        ]

    def _grown(self) -> list[str]:
        if self.seconds < SHORTEST_JUDGED_SECONDS:
            return []
        return [
            f"the {name}'s memory grew by {grown:.1%} since minute 3"
            for name, grown in self.growth().items()
            if grown > ALLOWED_GROWTH
        ]

    def growth(self) -> dict[str, float]:
        """Of each process, since minute 3 or, in a short run, since its middle."""
        since = min(BASELINE_SECONDS, self.seconds / 2)
        every = {"server": self.memory.server, "engine": self.memory.engine}
        return {name: growth(samples, since) for name, samples in every.items() if any(samples)}


async def soak(server: Served, seconds: float, concurrency: int, seed: int) -> Soaked:
    """Put `concurrency` clients on a server that has served nobody else, and watch it."""
    stop, over = asyncio.Event(), asyncio.Event()
    soaked = Soaked(seconds, Tally(), Memory())
    watching = asyncio.create_task(soaked.memory.watch(server.pid, over))
    clients = [
        Client(server.port, f"client-{number}", random.Random(f"{seed}-{number}"), soaked.tally)
        for number in range(concurrency)
    ]
    running = [asyncio.create_task(client.run(stop)) for client in clients]
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*running)
    soaked.metrics = await idle_metrics(server.port, IDLE_SECONDS)
    over.set()
    await watching
    return soaked


def table(soaked: Soaked) -> Table:
    """For a person."""
    tally = soaked.tally
    drawn = Table("what", "how many", title=f"Soak of {soaked.seconds:g} s")
    for kind, count in sorted(tally.asked.items()):
        drawn.add_row(f"asked: {kind}", f"{count:,}")
    drawn.add_section()
    drawn.add_row("answered (200)", f"{tally.answered:,}")
    for status, count in sorted(tally.refused.items()):
        drawn.add_row(f"refused ({status})", f"{count:,}")
    drawn.add_row("left before the end", f"{tally.left:,}")
    drawn.add_section()
    for name, value in sorted(soaked.metrics.items()):
        if name.startswith(("lmi_requests", "lmi_kv", "lmi_engine")) and "bucket" not in name:
            drawn.add_row(name, f"{value:,.0f}")
    drawn.add_section()
    for name, grown in soaked.growth().items():
        samples = getattr(soaked.memory, name)
        drawn.add_row(f"{name}: resident MiB, growth", f"{samples[-1]:,.1f}, {grown:+.2%}")
    return drawn


def plot(soaked: Soaked, path: Path) -> None:
    """Resident memory over time as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6))
    for axis, name in zip(axes, ("server", "engine"), strict=True):
        samples = getattr(soaked.memory, name)
        axis.plot([second / 60 for second in range(len(samples))], samples)
        axis.axvline(BASELINE_SECONDS / 60, color="grey", linestyle=":")
        axis.set_ylabel(f"{name}: resident MiB")
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def as_json(soaked: Soaked) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "benchmarks.soak", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "seconds": soaked.seconds,
        "asked": dict(soaked.tally.asked),
        "answered": soaked.tally.answered,
        "refused": dict(soaked.tally.refused),
        "left": soaked.tally.left,
        "metrics": soaked.metrics,
        "growth": soaked.growth(),
        "server_mib": [round(each, 1) for each in soaked.memory.server],
        "engine_mib": [round(each, 1) for each in soaked.memory.engine],
        "wrong": soaked.wrong(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=DEMO, help="what to serve")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), help="for soak.json and soak.png")
    given = parser.parse_args()
    port = free_port()
    with served(lmi_serve(given.folder, port), port) as server:
        soaked = asyncio.run(soak(server, given.minutes * 60, given.concurrency, given.seed))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "soak.json").write_text(json.dumps(as_json(soaked), indent=1) + "\n")
    plot(soaked, given.out / "soak.png")
    console = Console()
    console.print(table(soaked))
    wrong = soaked.wrong()
    for each in wrong:
        console.print(f"[red]wrong:[/red] {each}", markup=True, highlight=False)
    console.print("nothing was wrong" if not wrong else f"{len(wrong)} things were wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
