"""What a step costs beside the model: `python -m benchmarks.planner`.

The planner's time per step (no torch in it) with 32 running choices while others wait: alone, with
the prefix cache, and with guesses by n-grams. And the sampler's time for 32 rows of 32,000 logits,
beside transformers' logits processors on the same rows.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.figures import machine, percentiles, shown
from benchmarks.grid import Grid
from lmi.dist.messages import CoreRequest
from lmi.dist.plan import Plan
from lmi.dist.prefix import PrefixCache
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence
from lmi.dist.speculate import NgramGuesser

COLUMNS: Final = 130
RUNNING: Final = 32
WAITING: Final = (0, 1000, 10_000)
BLOCK_SIZE: Final = 16
MODEL_LEN: Final = 1024
VOCABULARY: Final = 32_000
FILLING_STEPS: Final = 64  # until all places are taken
STEPS: Final = 500
REPEATS: Final = 20
# Few words, and prompts of which half begin alike, so that the features have something to find.
WORDS: Final = 50
# How far the logits spread: a flat distribution is the hard case of top-p.
SPREADS: Final = {"flat": 1.0, "peaked": 4.0}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "greedy": {},
    "temperature": {"temperature": 1.0},
    "top_k=50": {"temperature": 1.0, "top_k": 50},
    "top_p=0.9": {"temperature": 1.0, "top_p": 0.9},
}
FEATURES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "planner": dict,
    "with the prefix cache": lambda: {"prefixes": PrefixCache(BLOCK_SIZE)},
    "with n-gram guesses": lambda: {"guesser": NgramGuesser(most=4, longest=4, free_rows=256)},
}


def main() -> int:
    """Measure, print the tables, write what was asked for."""
    given = arguments()
    console = Console(width=COLUMNS)
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks.planner", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine(),
    }
    steps, repeats = (STEPS // 10, REPEATS // 4) if given.quick else (STEPS, REPEATS)
    result: dict[str, Any] = {"facts": facts}
    result["planner"] = {
        name: {str(waiting): planner(features(), waiting, steps) for waiting in WAITING}
        for name, features in FEATURES.items()
    }
    result["sampler"] = sampler(repeats)
    grids = [planner_grid(result["planner"]), sampler_grid(result["sampler"])]
    for grid in grids:
        console.print(grid.rich())
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
        lines = "\n".join([f"* {name}: {value}" for name, value in facts.items()])
        parts = [lines, *[grid.markdown() for grid in grids]]
        given.json.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    return 0


def planner(features: dict[str, Any], waiting: int, steps: int) -> list[float]:
    """Seconds of each step: the plan, and taking note of what the step computed."""
    rng = random.Random(0)
    scheduler = Scheduler(
        blocks=RUNNING * MODEL_LEN // BLOCK_SIZE,
        block_size=BLOCK_SIZE,
        max_batch=RUNNING,
        prefill_tokens=512,
        **features,
    )
    number = 0
    found = []
    for _ in range(FILLING_STEPS + steps):
        while scheduler.waiting + scheduler.running < waiting + RUNNING:
            scheduler.add(new_sequence(number, rng))
            number += 1
        tokens = [rng.randrange(WORDS) for _ in range(RUNNING)]
        began = time.perf_counter()
        plan = scheduler.schedule()
        take(scheduler, plan, tokens)
        found.append(time.perf_counter() - began)
    return found[FILLING_STEPS:]


def new_sequence(number: int, rng: random.Random) -> Sequence:
    """A request of mixed length; every second begins like the others of its kind."""
    tokens = [rng.randrange(WORDS) for _ in range(rng.randint(32, 512))]
    if number % 2:
        tokens[:256] = [word % WORDS for word in range(min(256, len(tokens)))]
    request = CoreRequest(number, tuple(tokens), max_new_tokens=rng.randint(16, 256))
    return Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=MODEL_LEN)


def take(scheduler: Scheduler, plan: Plan, tokens: list[int]) -> None:
    """What the core does with a step's tokens; the first guess of a row comes true now and then."""
    ready = []
    for segment in plan.prefill:
        scheduler.computed(segment.sequence, segment.stop)
        if segment.last:
            ready.append(segment.sequence)
    for segment in plan.guessed:
        scheduler.judged(segment, 0)
        scheduler.computed(segment.sequence, segment.stop)
        ready.append(segment.sequence)
    for sequence in plan.decode:
        scheduler.computed(sequence, sequence.done + 1)
        ready.append(sequence)
    for sequence, token in zip(ready, tokens, strict=False):
        sequence.tokens.append(token)
        if len(sequence.tokens) >= sequence.stop_at:
            scheduler.remove(sequence)


def sampler(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per call, by the logits' spread and the settings: ours and transformers'."""
    import torch

    from lmi.dist.sampling import Sampler

    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for spread, width in SPREADS.items():
        torch.manual_seed(0)
        logits = torch.randn(RUNNING, VOCABULARY) * width
        for name, setting in SETTINGS.items():
            crowd = [
                Sequence.of(
                    CoreRequest(i, (1, 2, 3), seed=i, **setting),
                    0,
                    eos_ids=frozenset(),
                    max_model_len=MODEL_LEN,
                )
                for i in range(RUNNING)
            ]
            found[f"{name}, {spread}"] = {
                "lmi.dist": timed(partial(Sampler().sample, sequences=crowd), logits, repeats),
                "transformers": timed(processors(setting), logits, repeats),
            }
    return found


def processors(setting: dict[str, Any]) -> Callable[[Any], Any]:
    """What transformers' generate does with a step's logits."""
    import torch
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList()
    if not setting:
        return lambda rows: rows.argmax(dim=-1).tolist()
    chain.append(TemperatureLogitsWarper(setting["temperature"]))
    if "top_k" in setting:
        chain.append(TopKLogitsWarper(setting["top_k"]))
    if "top_p" in setting:
        chain.append(TopPLogitsWarper(setting["top_p"]))
    ids = torch.zeros((RUNNING, 1), dtype=torch.int64)

    def draw(rows: Any) -> Any:
        weights = torch.softmax(chain(ids, rows), dim=-1)
        return torch.multinomial(weights, num_samples=1).tolist()

    return draw


def timed(call: Callable[[Any], Any], logits: Any, repeats: int) -> list[float]:
    """Seconds of each call, after one that does not count."""
    import torch

    found = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            rows = logits.clone()  # a sampler may change them
            began = time.perf_counter()
            call(rows)
            found.append(time.perf_counter() - began)
    return found[1:]


def planner_grid(found: dict[str, dict[str, list[float]]]) -> Grid:
    """Microseconds per step."""
    grid = Grid(
        f"Planner, {RUNNING} running: microseconds per step, p50 (p99)",
        ("", *[f"{waiting:,} waiting" for waiting in WAITING]),
    )
    for name, by_waiting in found.items():
        cells = []
        for seconds in by_waiting.values():
            at = percentiles(seconds, scale=1e6)
            cells.append(f"{at['p50']:,.0f} ({at['p99']:,.0f})")
        grid.row(name, *cells)
    return grid


def sampler_grid(found: dict[str, dict[str, list[float]]]) -> Grid:
    """Milliseconds per call."""
    grid = Grid(
        f"Sampler, {RUNNING} rows of {VOCABULARY:,} logits, one thread: milliseconds, median (least"
        " to most)",
        ("", "lmi.dist", "transformers"),
    )
    for name, by_library in found.items():
        cells = [
            shown([1e3 * second for second in seconds], ".2f") for seconds in by_library.values()
        ]
        grid.row(name, *cells)
    return grid


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.planner", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--json", type=Path, help="write all figures here, the tables beside it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
