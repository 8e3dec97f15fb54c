"""What it costs two ranks on one host to add up their numbers, by size: shared memory against gloo.

    python -m benchmarks.collectives [--quick] [--json FILE] [--ranks 2]

One thread per rank, pinned to a core each. The means take turns within each repeat, call after call
without a pause; a figure is rank 0's p50 and p99 over the calls of a repeat, in microseconds, and
the table shows the median of the repeats with the least and the most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from benchmarks.figures import machine, percentiles, shown
from lmi.dist.collectives.native import RanksLibrary
from lmi.dist.collectives.process_group import ProcessGroup
from lmi.dist.collectives.shared_memory import SharedMemory
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.native.library import load_library
from lmi.dist.place import Place

KIB: Final = 1024
SIZES: Final = tuple(kib * KIB for kib in (8, 32, 128, 512, 1024, 4096))
HIDDEN: Final = 1024  # of the rows that are normed: 4 KiB each
MICROSECONDS: Final = 1e6
IDLE_SECONDS: Final = 0.02
TIMEOUT: Final = 60.0

Row = dict[str, Any]


def calls_of(size: int, quick: bool) -> int:
    """More of the short ones."""
    calls = min(2000, max(200, (256 << 20) // size // 8))
    return calls // 8 if quick else calls


def timed(call: Callable[[], object], calls: int, group: ProcessGroup) -> dict[str, float]:
    """p50 and p99 of one call, after a tenth as many that are not counted."""
    group.meet(TIMEOUT)
    for _ in range(calls // 10 + 3):
        call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    found = percentiles(seconds, MICROSECONDS)
    return {"p50": found["p50"], "p99": found["p99"]}


def sums(shared: SharedMemory, group: ProcessGroup, quick: bool) -> Iterator[Row]:
    """all_reduce in place, float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        for size in SIZES:
            tensor = torch.zeros(size // dtype.itemsize, dtype=dtype)
            calls = calls_of(size, quick)
            for name, call in (
                ("gloo", lambda tensor=tensor: dist.all_reduce(tensor)),
                ("shared memory", lambda tensor=tensor: shared.all_reduce(tensor)),
            ):
                what = f"all_reduce, {str(dtype).removeprefix('torch.')}"
                yield {"what": what, "size": size, "by": name} | timed(call, calls, group)


def norms(
    shared: SharedMemory, group: ProcessGroup, kernels: Kernels, quick: bool
) -> Iterator[Row]:
    """The sum, the residual and the norm: fused, and one after the other."""
    group.kernels = kernels
    weight = torch.ones(HIDDEN)
    for size in SIZES:
        residual = torch.ones(size // HIDDEN // 4, HIDDEN)
        delta = torch.zeros_like(residual)

        def fused(residual: torch.Tensor = residual, delta: torch.Tensor = delta) -> None:
            shared.add_rms_norm(residual, delta, weight, 1e-6)

        def apart(residual: torch.Tensor = residual, delta: torch.Tensor = delta) -> None:
            kernels.add_rms_norm(residual, shared.all_reduce(delta), weight, 1e-6)

        def gloo(residual: torch.Tensor = residual, delta: torch.Tensor = delta) -> None:
            dist.all_reduce(delta)
            kernels.add_rms_norm(residual, delta, weight, 1e-6)

        for name, call in (("gloo", gloo), ("shared memory", apart), ("fused", fused)):
            row = {"what": "all_reduce + residual + RMSNorm", "size": size, "by": name}
            yield row | timed(call, calls_of(size, quick), group)


def messages(shared: SharedMemory, group: ProcessGroup, quick: bool) -> Iterator[Row]:
    """64 bytes from rank 0 and an answer; and how long idle followers take to hear them."""
    said = bytes(64)
    answer = torch.zeros(1)
    for name, means in (("gloo", group), ("shared memory", shared)):

        def exchange(means: ProcessGroup | SharedMemory = means) -> None:
            means.broadcast(said if means.rank == 0 else None)
            means.all_reduce(answer)

        row = {"what": "message and answer", "size": len(said), "by": name}
        yield row | timed(exchange, calls_of(SIZES[0], quick), group)
        delays = []
        for _ in range(10 if quick else 50):
            if means.rank == 0:
                time.sleep(IDLE_SECONDS)
                means.broadcast(time.monotonic_ns().to_bytes(8, "little"))
            else:
                sent = int.from_bytes(means.broadcast(None), "little")
                delays.append((time.monotonic_ns() - sent) / 1e9)
            means.meet(TIMEOUT)
        found = percentiles(delays, MICROSECONDS) or {"p50": 0.0, "p99": 0.0}
        row = {"what": f"first message after {IDLE_SECONDS * 1000:g} ms", "size": 8, "by": name}
        yield row | {"p50": found["p50"], "p99": found["p99"]}


def rank_main(place: Place, repeats: int, quick: bool, results: Connection) -> None:
    """One rank; it sends a list of rows per repeat."""
    os.sched_setaffinity(0, {place.rank % (os.cpu_count() or 1)})
    torch.set_num_threads(1)
    group = ProcessGroup(place, torch.device("cpu"), TIMEOUT)
    shared = SharedMemory.join(RanksLibrary(load_library()), group)
    if isinstance(shared, str):
        raise SystemExit(f"no shared memory: {shared}")
    kernels = CpuKernels()
    for _ in range(repeats):
        results.send(
            [
                *sums(shared, group, quick),
                *norms(shared, group, kernels, quick),
                *messages(shared, group, quick),
            ]
        )
    group.meet(TIMEOUT)
    shared.close()


def table(repeats: list[list[Row]]) -> Iterator[str]:
    """Markdown, a line per operation and size."""
    yield "| operation | bytes | by | p50, µs | p99, µs |"
    yield "|---|---|---|---|---|"
    for same in zip(*repeats, strict=True):
        row = same[0]
        figures = (shown([each[name] for each in same], ",.1f") for name in ("p50", "p99"))
        yield f"| {row['what']} | {row['size']:,} | {row['by']} | {' | '.join(figures)} |"


def merged(by_rank: list[list[Row]]) -> list[Row]:
    """Rank 0's rows, but for what only followers measure."""
    leading, following = by_rank[0], by_rank[1]
    return [
        second if first["what"].startswith("first message") else first
        for first, second in zip(leading, following, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", type=Path, help="write every figure of every repeat here")
    parser.add_argument("--ranks", type=int, default=2, help="from 2")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ends = []
        processes = []
        for rank in range(chosen.ranks):
            place = Place(rank, chosen.ranks, f"file://{folder}/store")
            ours, theirs = spawn.Pipe(duplex=False)
            arguments = (place, chosen.repeats, chosen.quick, theirs)
            processes.append(spawn.Process(target=rank_main, args=arguments))
            processes[-1].start()
            theirs.close()
            ends.append(ours)
        repeats = [merged([end.recv() for end in ends]) for _ in range(chosen.repeats)]
        for process in processes:
            process.join()
    lines = "\n".join(table(repeats))
    print(lines)
    if chosen.json is not None:
        chosen.json.with_suffix(".md").write_text(lines + "\n")
        facts = {"machine": machine(), "ranks": chosen.ranks, "repeats": repeats}
        chosen.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
