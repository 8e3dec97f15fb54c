"""The load generator: `python -m benchmarks.load --port 8080 --concurrency 64 --seconds 10`.

Closed loop (so many clients, one request each at a time) or, with --rate, open loop. Prints a table
and, with --json, writes the figures. On a small machine run it under `chrt -f 10`, else it starves
behind the server and measures its own waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.figures import PERCENTS, percentiles
from benchmarks.load_client import Ask, Load, Measured, Target, http_request
from benchmarks.load_dialects import DIALECTS, Dialect

CHARS_PER_ECHO_TOKEN = 3
DIFFERENT_PROMPTS = 256  # enough that no answer can come from a cache of prompts


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement.

    rate: requests per second of the open loop, None for the closed loop. requests: measure so many
    from the first byte sent to the last answer's end, instead of `seconds` after a warm-up.
    """

    target: Target
    concurrency: int
    streamed: bool
    seconds: float
    warmup: float
    rate: float | None = None
    watch: int | None = None
    requests: int | None = None


def echo_prompts(tokens: int, seed: int = 0) -> list[str]:
    """Prompts of so many tokens of the echo engine: random words."""
    rng = random.Random(seed)
    size = tokens * CHARS_PER_ECHO_TOKEN
    return [_words(rng, size) for _ in range(DIFFERENT_PROMPTS)]


def _words(rng: random.Random, size: int) -> str:
    letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz    ", k=size))
    return letters[:-1] + "."


def asks(
    target: Target, dialect: Dialect, prompts: Sequence[str], tokens: int, streamed: bool
) -> Iterator[Ask]:
    """The prompts over and over, each as a request for exactly so many tokens."""
    proof = dialect.proof(tokens)
    bodies = [json.dumps(dialect.body(prompt, tokens, streamed)).encode() for prompt in prompts]
    return itertools.cycle(
        [Ask(http_request(target, body), tokens, streamed, proof) for body in bodies]
    )


async def measure(plan: Plan, requests: Iterator[Ask]) -> dict[str, Any]:
    """Put the load on and say what was seen."""
    if plan.requests is not None:
        requests = itertools.islice(requests, plan.requests)
    load = Load(plan.target, requests)
    if plan.rate is None:
        load.closed_loop(plan.concurrency)
    else:
        load.open_loop(plan.rate)
    if plan.requests is None:
        await asyncio.sleep(plan.warmup)
    load.measured.clear()
    watched = cpu_seconds(plan.watch)
    own = time.process_time()
    began = time.perf_counter()
    if plan.requests is None:
        await asyncio.sleep(plan.seconds)
    else:
        await load.until_over()
    took = time.perf_counter() - began
    own = time.process_time() - own
    cpu = {name: used - watched.get(name, 0.0) for name, used in cpu_seconds(plan.watch).items()}
    figures = summary(load.measured, took, cpu, own)
    await load.stop()
    return figures


def summary(
    measured: Measured, seconds: float, cpu: dict[str, float], own: float
) -> dict[str, Any]:
    """The figures of a measurement as JSON."""
    kilotokens = measured.tokens / 1000
    return {
        "seconds": round(seconds, 3),
        "requests": len(measured.whole),
        "tokens": measured.tokens,
        "requests_per_s": round(len(measured.whole) / seconds, 2),
        "tokens_per_s": round(measured.tokens / seconds, 1),
        "first_ms": percentiles(measured.first, 1e3),
        "each_token_ms": percentiles(measured.each, 1e3),
        "gap_ms": percentiles(measured.gaps, 1e3),
        "pieces": measured.pieces,
        "whole_ms": percentiles(measured.whole, 1e3),
        "errors": dict(measured.errors),
        "cpu_s_per_1000_tokens": {
            name: round(used / kilotokens, 5) for name, used in cpu.items() if kilotokens
        },
        "cpu_share": {name: round(used / seconds, 3) for name, used in cpu.items()},
        "generator_cpu_share": round(own / seconds, 3),
    }


def cpu_seconds(pid: int | None) -> dict[str, float]:
    """CPU time used so far by a server's own process and by its children together."""
    if pid is None:
        return {}
    children = psutil.Process(pid).children(recursive=True)
    return {
        "front": _run_seconds(pid),
        "engine": sum([_run_seconds(child.pid) for child in children]),
    }


def _run_seconds(pid: int) -> float:
    """Of the threads that still live, by the scheduler: psutil counts in ticks of 10 ms."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum([int(thread.read_text().split()[0]) for thread in threads]) / 1e9


def table(figures: dict[str, Any]) -> Table:
    """For a person."""
    shown = Table("figure", "value", *[f"p{percent}" for percent in PERCENTS])
    for name, value in figures.items():
        if isinstance(value, dict) and "p50" in value:
            shown.add_row(name, "", *[f"{each:,.3f}" for each in value.values()])
        elif isinstance(value, dict):
            shown.add_row(name, ", ".join([f"{key}: {each}" for key, each in value.items()]))
        else:
            shown.add_row(name, f"{value:,}")
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--dialect", choices=DIALECTS, default="lmi")
    parser.add_argument("--path", help="instead of the dialect's own")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float, help="open loop: requests per second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--requests", type=int, help="measure exactly so many, without warm-up")
    parser.add_argument("--whole", action="store_true", help="do not stream")
    parser.add_argument("--in", dest="input_tokens", type=int, default=32)
    parser.add_argument("--out", dest="output_tokens", type=int, default=512)
    parser.add_argument("--prompts", type=Path, help="a JSON list of prompts to use instead")
    parser.add_argument("--watch", type=int, help="the server's process id, for its CPU time")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    streamed = not given.whole
    if given.prompts is not None:
        prompts = json.loads(given.prompts.read_text())
    else:
        prompts = echo_prompts(given.input_tokens)
    dialect = DIALECTS[given.dialect]
    plan = Plan(
        target=Target(given.host, given.port, given.path or dialect.path),
        concurrency=given.concurrency,
        streamed=streamed,
        seconds=given.seconds,
        warmup=given.warmup,
        rate=given.rate,
        watch=given.watch,
        requests=given.requests,
    )
    requests = asks(plan.target, dialect, prompts, given.output_tokens, streamed)
    gc.disable()  # nothing here makes cycles, and a pause would be taken for the server's
    figures = uvloop.run(measure(plan, requests))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    Console(stderr=given.json is None).print(table(figures))
    return 1 if figures["errors"] or not figures["requests"] else 0


if __name__ == "__main__":
    sys.exit(main())
