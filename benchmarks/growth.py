"""How LMI-Dist's cost grows: `python -m benchmarks.growth`.

Tokens per second with 1 to 128 requests at once; one request's decoding and its prompt's time with
128 to 8,192 tokens of context; what a token of context costs in memory; how long a start takes and
how much memory it ends with.
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
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console

from benchmarks.figures import machine, shown
from benchmarks.grid import Grid
from benchmarks.offline.compare import job_of
from benchmarks.offline.process import SubjectProcess
from benchmarks.offline.records import Group, Point, Round
from benchmarks.offline.serve import Setting
from benchmarks.offline.subjects import OURS, SUBJECTS
from benchmarks.offline.weights import BYTES, SHAPES, write

COLUMNS: Final = 150
SHAPE: Final = "llama-100m-16k"
CONCURRENCY: Final = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS: Final = (128, 512, 1024, 2048, 4096, 8192)
LENGTHS: Final = (64, 32)
CONTEXT_OUTPUTS: Final = 33  # one comes with the prompt, the rest are decoded
WARM_OUTPUTS: Final = 2
LIMIT_SECONDS: Final = 600.0


def main() -> int:
    given = arguments()
    console = Console(width=COLUMNS)

    def say(line: str) -> None:
        console.print(line, highlight=False)

    facts = {
        "command": shlex.join(["python", "-m", "benchmarks.growth", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine(),
    }
    result: dict[str, Any] = {"facts": facts, "subject": given.subject}
    with ExitStack() as stack:
        home = given.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        result |= _measure(given, home.resolve(), say)
    grids = [concurrency_grid(result), context_grid(result), start_grid(result)]
    for grid in grids:
        console.print(grid.rich())
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
        lines = "\n".join([f"* {name}: {value}" for name, value in facts.items()])
        parts = [lines, *[grid.markdown() for grid in grids]]
        given.json.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    return 0


def _measure(given: argparse.Namespace, home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Each repeat starts a process anew, so that starts are repeated as well."""
    shape = SHAPES[given.shape]
    group = Group(given.shape, given.dtype, given.threads)
    folder = write(shape, given.dtype, home)
    subject = SUBJECTS[given.subject]
    points = [Point(*LENGTHS, concurrency) for concurrency in given.concurrency]
    long_points = [Point(tokens, CONTEXT_OUTPUTS, 1) for tokens in given.contexts]
    settings = {
        # One for many short texts, one for a few long ones: the KV cache is sized for each.
        "concurrency": (points, max(given.concurrency), sum(LENGTHS)),
        "context": (long_points, 1, max(given.contexts) + CONTEXT_OUTPUTS),
    }
    found: dict[str, Any] = {name: [] for name in settings} | {"starts": []}
    for repeat in range(given.repeats):
        for name, (todo, max_batch, max_tokens) in settings.items():
            say(f"repeat {repeat + 1} of {given.repeats}: {name}")
            setting = Setting(
                model=str(folder),
                dtype=given.dtype,
                threads=given.threads,
                max_batch=max_batch,
                max_tokens=max_tokens,
                options=dict(subject.options),
            )
            with SubjectProcess(subject, setting, home=home, ready_limit=LIMIT_SECONDS) as process:
                start = {
                    "ready_s": process.ready_seconds,
                    "facts": process.facts,
                    "ready_mib": process.memory_mib["resident"],
                }
                process.run(
                    job_of(group, Point(LENGTHS[0], WARM_OUTPUTS, max_batch), -1), LIMIT_SECONDS
                )
                for point in _shuffled(todo, repeat):
                    job = job_of(group, point, repeat)
                    done = process.run(job, LIMIT_SECONDS)
                    one = asdict(Round.of(group, given.subject, point, repeat, job, done))
                    found[name].append(one | {"resident_mib": process.memory_mib["resident"]})
                found["starts"].append(
                    start | {"peak_mib": process.memory_mib["peak"], "for": name}
                )
    found["kv_bytes_per_token"] = shape.kv_numbers_per_token * BYTES[given.dtype]
    found["weight_mib"] = shape.parameters * BYTES[given.dtype] / 2**20
    return found


def _shuffled(points: list[Point], repeat: int) -> list[Point]:
    """Another order in each repeat, so that no point always profits from its predecessor."""
    return random.Random(repeat).sample(points, len(points))


def concurrency_grid(result: dict[str, Any]) -> Grid:
    """Tokens per second, and how the time of a step grows."""
    inputs, outputs = LENGTHS
    grid = Grid(
        f"{inputs} tokens in, {outputs} out: median (least to most) of repeats",
        ("concurrency", "tokens/s", "of one request's, times", "first id p50 ms", "whole p50 ms"),
    )
    rounds = result["concurrency"]
    alone = median([one["tokens_per_s"] for one in _at(rounds, "concurrency", 1)] or [float("nan")])
    for concurrency in sorted({one["point"]["concurrency"] for one in rounds}):
        own = _at(rounds, "concurrency", concurrency)
        rates = [one["tokens_per_s"] for one in own]
        grid.row(
            str(concurrency),
            shown(rates, ",.1f"),
            f"{median(rates) / alone:.1f}",
            shown([1000 * one["first_s"] for one in own]),
            shown([1000 * one["whole_s"] for one in own]),
        )
    return grid


def context_grid(result: dict[str, Any]) -> Grid:
    """One request's decoding after prompts of growing length."""
    grid = Grid(
        f"One request, {CONTEXT_OUTPUTS - 1} tokens decoded after the context: median (least to "
        "most) of repeats",
        ("context", "decode tokens/s", "ms per token", "prompt tokens/s", "KV cache MiB"),
    )
    rounds = result["context"]
    for tokens in sorted({one["point"]["inputs"] for one in rounds}):
        own = _at(rounds, "inputs", tokens)
        grid.row(
            f"{tokens:,}",
            shown([one["decode_tokens_per_s"] for one in own], ",.1f"),
            shown([1000 / one["decode_tokens_per_s"] for one in own], ".1f"),
            shown([tokens / one["first_s"] for one in own]),
            f"{(tokens + CONTEXT_OUTPUTS) * result['kv_bytes_per_token'] / 2**20:,.1f}",
        )
    return grid


def start_grid(result: dict[str, Any]) -> Grid:
    """Time until ready, and memory."""
    grid = Grid(
        f"Start and memory of a model of {result['weight_mib']:,.0f} MiB of weights; "
        f"{result['kv_bytes_per_token']:,} bytes of KV per token of context",
        ("process for", "ready s", "resident when ready MiB", "peak MiB", "KV cache"),
    )
    for name in ("concurrency", "context"):
        own = [one for one in result["starts"] if one["for"] == name]
        grid.row(
            f"growth of {name}",
            shown([one["ready_s"] for one in own], ".1f"),
            shown([one["ready_mib"] for one in own]),
            shown([one["peak_mib"] for one in own]),
            own[0]["facts"].get("KV cache", "–"),
        )
    return grid


def _at(rounds: list[dict[str, Any]], name: str, value: int) -> list[dict[str, Any]]:
    return [one for one in rounds if one["point"][name] == value]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="under a minute: a tiny model")
    parser.add_argument("--subject", choices=list(SUBJECTS), default=OURS)
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--dtype", choices=list(BYTES), default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--home", type=Path, help="keep models in this folder")
    parser.add_argument(
        "--json", type=Path, help="write all figures here, and the tables beside it as .md"
    )
    given = parser.parse_args()
    given.shape = given.shape or ("llama-tiny" if given.quick else SHAPE)
    given.repeats = given.repeats or (1 if given.quick else 3)
    given.concurrency = (1, 8) if given.quick else CONCURRENCY
    given.contexts = (128, 512) if given.quick else CONTEXTS
    return given


if __name__ == "__main__":
    sys.exit(main())
