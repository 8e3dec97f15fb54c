"""Rolling batch against dynamic batching: `python -m benchmarks.mixed_lengths`.

The same model, weights, requests and threads. 16 clients send requests of mixed lengths (prompts
of 32 to 512 tokens, answers of 16 to 256, seeded) and each waits for its answer. Rolling: LMI-Dist.
Dynamic: transformers' `generate` on padded batches of all that wait, up to 16; a batch answers when
its longest answer is done (`offline.engine_generate` states the rule). Throughput counts the tokens
that were asked for, latency is a request's from being sent to its whole answer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from rich.console import Console

from benchmarks.figures import machine, shown
from benchmarks.grid import Grid
from benchmarks.offline.loop import Done, Job
from benchmarks.offline.percent import change, percentile
from benchmarks.offline.process import SubjectProcess
from benchmarks.offline.records import digest
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import OURS, REFERENCE, SUBJECTS
from benchmarks.offline.weights import BYTES, SHAPES, write

COLUMNS: Final = 170
INPUTS: Final = (32, 512)
OUTPUTS: Final = (16, 256)
CONCURRENCY: Final = 16
REQUESTS: Final = 48
QUICK_REQUESTS: Final = 24
FIRST_ID: Final = 3  # below are the special ones
LIMIT_SECONDS: Final = 900.0
WARM_OUTPUTS: Final = 4
GOAL: Final = {"latency": -60.0, "throughput": 150.0}


def main() -> int:
    given = arguments()
    console = Console(width=COLUMNS)
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks.mixed_lengths", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": f"{given.shape}, {given.dtype}, threads: {given.threads}",
        **machine(),
    }
    runs: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        home = given.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        runs = _measure(given, home.resolve(), lambda line: console.print(line, highlight=False))
    drawn = grid(runs, facts["model"])
    console.print(drawn.rich())
    if given.json is not None:
        given.json.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n")
        lines = "\n".join([f"* {name}: {value}" for name, value in facts.items()])
        given.json.with_suffix(".md").write_text(f"{lines}\n\n{drawn.markdown()}\n")
    return 0


def workload(count: int, vocabulary: int, seed: int, longest: tuple[int, int]) -> Job:
    """Requests with lengths drawn evenly from INPUTS and OUTPUTS, up to the longest given."""
    rng = random.Random(seed)
    prompts, outputs = [], []
    for _ in range(count):
        tokens = rng.randint(INPUTS[0], longest[0])
        prompts.append([rng.randrange(FIRST_ID, vocabulary) for _ in range(tokens)])
        outputs.append(rng.randint(OUTPUTS[0], longest[1]))
    return Job(prompts, outputs, CONCURRENCY)


def figures(job: Job, done: Done) -> dict[str, Any]:
    """Of one run of a workload."""
    waits = sorted([ended - sent for ended, sent in zip(done.ended, done.sent, strict=True)])
    return {
        "seconds": done.seconds,
        "tokens_per_s": sum(job.outputs) / done.seconds,
        "requests_per_s": len(job.outputs) / done.seconds,
        "latency_s": {
            "mean": mean(waits),
            "p50": percentile(waits, 50),
            "p95": percentile(waits, 95),
        },
        "digests": [digest(answer) for answer in done.answers],
    }


def grid(runs: dict[str, list[dict[str, Any]]], model: str) -> Grid:
    """Medians of the repeats with least and most, and what changes against dynamic batching."""
    drawn = Grid(
        f"Mixed lengths, {CONCURRENCY} clients, {model}: median (least to most) of repeats; change "
        f"against {REFERENCE} (goal: mean latency {GOAL['latency']:+.0f} %, throughput "
        f"{GOAL['throughput']:+.0f} %)",
        (
            "engine",
            "tokens/s",
            "change",
            "latency mean s",
            "change",
            "p50 s",
            "p95 s",
            "same answers",
        ),
    )
    base = runs.get(REFERENCE)
    for name, own in runs.items():
        rates = [run["tokens_per_s"] for run in own]
        means = [run["latency_s"]["mean"] for run in own]
        faster = later = same = "–"
        if base is not None:
            faster = change(median(rates), median([run["tokens_per_s"] for run in base]))
            later = change(median(means), median([run["latency_s"]["mean"] for run in base]))
            pairs = [
                pair
                for mine, its in zip(own, base, strict=True)
                for pair in zip(mine["digests"], its["digests"], strict=True)
            ]
            same = f"{sum([mine == its for mine, its in pairs])} of {len(pairs)}"
        drawn.row(
            name,
            shown(rates, ",.1f"),
            faster,
            shown(means, ".2f"),
            later,
            shown([run["latency_s"]["p50"] for run in own], ".2f"),
            shown([run["latency_s"]["p95"] for run in own], ".2f"),
            same,
        )
    return drawn


def _measure(
    given: argparse.Namespace, home: Path, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """All subjects loaded, then taking turns in every repeat; each repeat has its own requests."""
    shape = SHAPES[given.shape]
    longest = (96, 64) if given.quick else (INPUTS[1], OUTPUTS[1])
    folder = write(shape, given.dtype, home)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in given.subjects}
    with ExitStack() as running:
        loaded = {}
        for name in given.subjects:
            say(f"loading {name}")
            subject = SUBJECTS[name]
            setting = Setting(
                model=str(folder),
                dtype=given.dtype,
                threads=given.threads,
                max_batch=CONCURRENCY,
                max_tokens=sum(longest),
                options=dict(subject.options),
            )
            loaded[name] = running.enter_context(
                SubjectProcess(subject, setting, home=home, ready_limit=LIMIT_SECONDS)
            )
            warm = workload(CONCURRENCY, shape.vocabulary, -1, (INPUTS[0], OUTPUTS[0]))
            loaded[name].run(warm, LIMIT_SECONDS)
        for repeat in range(given.repeats):
            job = workload(given.requests, shape.vocabulary, repeat, longest)
            for name in given.subjects:
                say(f"repeat {repeat + 1} of {given.repeats}: {name}")
                runs[name].append(figures(job, loaded[name].run(job, LIMIT_SECONDS)))
    return runs


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.mixed_lengths",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="under a minute: a tiny model")
    parser.add_argument(
        "--subjects",
        type=lambda text: text.split(","),
        default=[OURS, REFERENCE],
        help=f"of: {', '.join(SUBJECTS)} (default: {OURS},{REFERENCE})",
    )
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--dtype", choices=list(BYTES), default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--home", type=Path, help="keep models in this folder")
    parser.add_argument(
        "--json", type=Path, help="write all figures here, and the table beside it as .md"
    )
    given = parser.parse_args()
    for name in given.subjects:
        if name not in SUBJECTS:
            parser.error(f"--subjects: {name!r} is none of {', '.join(SUBJECTS)}")
    given.shape = given.shape or ("llama-tiny" if given.quick else "llama-100m")
    given.requests = given.requests or (QUICK_REQUESTS if given.quick else REQUESTS)
    given.repeats = given.repeats or (1 if given.quick else 3)
    return given


if __name__ == "__main__":
    sys.exit(main())
