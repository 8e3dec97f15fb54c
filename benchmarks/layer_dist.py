"""What is left of LMI-Dist's speed behind HTTP: the same requests, to `lmi serve` and directly.

Both sides run the engine in a process of its own with the same settings, on a Llama of 100 million
parameters, so that the model sets the pace and not the two cores that everything shares. They take
turns in every repeat. A run is a fixed number of requests in a closed loop, timed from the first
byte sent to the last answer's end.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.direct import DirectPlan, DirectProcess, direct
from benchmarks.figures import shown
from benchmarks.grid import Grid
from benchmarks.random_llama import prompts, write_model
from benchmarks.serving import Served, free_port, lmi_serve, load, served

TOKENS: Final = 64  # in, and out
MAX_BATCH: Final = 32
PROPERTIES: Final = (
    "engine=lmi-dist\noption.dtype=fp32\noption.threads=1\n"
    f"option.max_rolling_batch_size={MAX_BATCH}\noption.max_model_len=512\n"
)
# The first token of a short prompt: the less the model does, the better the layer's part shows.
FIRST_PROMPT_TOKENS: Final = 8
FIRST_OUTPUT_TOKENS: Final = 2
FIRST_REQUESTS: Final = 10
STREAMED: Final = "lmi serve, streamed"
WHOLE: Final = "lmi serve, whole"
DIRECT: Final = "engine alone"


@dataclass(frozen=True, slots=True)
class Size:
    """Of a run."""

    concurrency: int
    requests: int


@dataclass(frozen=True, slots=True)
class DistPlan:
    """requests: how many, by concurrency. first_rounds: of FIRST_REQUESTS for the first token."""

    requests: Mapping[int, int]
    repeats: int
    first_rounds: int


def run(plan: DistPlan, folder: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures. folder: a model of `benchmarks.random_llama` to use again, or made there."""
    with ExitStack() as running:
        if folder is None:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "config.json").exists():
            say("writing the model")
            folder.mkdir(parents=True, exist_ok=True)
            write_model(folder)
        (folder / "serving.properties").write_text(PROPERTIES)
        port = free_port()
        lmi = running.enter_context(served(lmi_serve(folder, port), port))
        alone = running.enter_context(direct(folder))
        _warm_up(lmi, alone, folder)
        rates = _rates(plan, lmi, alone, folder, say)
        first = _first_token(plan, lmi, alone, folder, say)
    return {
        "shape": f"{TOKENS} tokens in, {TOKENS} out, greedy, float32, one thread",
        "properties": PROPERTIES,
        "found": rates,
        "first_token": first,
    }


def _warm_up(lmi: Served, alone: DirectProcess, folder: Path) -> None:
    """A full batch for both, so that neither is measured while it touches its memory first."""
    texts = prompts(folder, MAX_BATCH, TOKENS, seed=2)
    _by_http(lmi, texts, FIRST_OUTPUT_TOKENS, Size(MAX_BATCH, MAX_BATCH))
    alone.run(DirectPlan(texts, FIRST_OUTPUT_TOKENS, MAX_BATCH, requests=MAX_BATCH))


def _rates(
    plan: DistPlan, lmi: Served, alone: DirectProcess, folder: Path, say: Callable[[str], None]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    texts = prompts(folder, max(plan.requests.values()), TOKENS)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {STREAMED: {}, WHOLE: {}, DIRECT: {}}
    for repeat in range(plan.repeats):
        for concurrency, requests in plan.requests.items():
            say(f"lmi-dist, concurrency {concurrency}, repeat {repeat + 1} of {plan.repeats}")
            size = Size(concurrency, requests)
            runs = (
                (STREAMED, _by_http(lmi, texts, TOKENS, size)),
                (DIRECT, alone.run(DirectPlan(texts, TOKENS, concurrency, requests=requests))),
                (WHOLE, _by_http(lmi, texts, TOKENS, size, "--whole")),
            )
            for name, figures in runs:
                found[name].setdefault(str(concurrency), []).append(figures)
    return found


def _first_token(
    plan: DistPlan, lmi: Served, alone: DirectProcess, folder: Path, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """The median first token of each round in ms, and what HTTP added in it."""
    texts = prompts(folder, FIRST_REQUESTS, FIRST_PROMPT_TOKENS, seed=1)
    size = Size(1, FIRST_REQUESTS)
    plan_direct = DirectPlan(texts, FIRST_OUTPUT_TOKENS, 1, requests=FIRST_REQUESTS)
    found: dict[str, list[float]] = {STREAMED: [], DIRECT: [], "added": []}
    say(f"lmi-dist, first token, {plan.first_rounds} rounds of {FIRST_REQUESTS} requests")
    for _ in range(plan.first_rounds):
        http = _by_http(lmi, texts, FIRST_OUTPUT_TOKENS, size)["first_ms"]["p50"]
        bare = alone.run(plan_direct)["first_ms"]["p50"]
        found[STREAMED].append(http)
        found[DIRECT].append(bare)
        found["added"].append(http - bare)
    return found


def _by_http(lmi: Served, texts: list[str], tokens: int, size: Size, *more: str) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        return load(
            lmi,
            *("--prompts", file.name, "--out", str(tokens)),
            *("--concurrency", str(size.concurrency), "--requests", str(size.requests)),
            *more,
        )


def grid(result: dict[str, Any]) -> Grid:
    """Medians of the repeats, with least and most; the ratio of the medians."""
    drawn = Grid(
        f"LMI-Dist behind HTTP: {result['shape']}; median (least to most) of repeats",
        (
            "concurrency",
            "what",
            "tokens/s",
            "of the engine alone",
            "front's CPU s per 1,000 tokens",
            "first token p50 ms",
            "whole answer p50 ms",
        ),
    )
    found = result["found"]
    for concurrency, bare in found[DIRECT].items():
        pace = statistics.median([run["tokens_per_s"] for run in bare])
        for name in (STREAMED, WHOLE, DIRECT):
            runs = found[name][concurrency]
            rates = [run["tokens_per_s"] for run in runs]
            firsts = [run["first_ms"]["p50"] for run in runs] if name != WHOLE else []
            drawn.row(
                concurrency,
                name,
                shown(rates, ",.1f"),
                f"{statistics.median(rates) / pace:.3f}",
                shown([run["cpu_s_per_1000_tokens"]["front"] for run in runs], ".4f"),
                shown(firsts, ",.1f"),
                shown([run["whole_ms"]["p50"] for run in runs], ",.0f"),
            )
        drawn.section()
    return drawn


def first_token_line(result: dict[str, Any]) -> str:
    """What HTTP adds to the first token at concurrency 1."""
    first = result["first_token"]
    return (
        f"First token at concurrency 1, median ms: behind HTTP {shown(first[STREAMED], '.2f')}, "
        f"engine alone {shown(first[DIRECT], '.2f')}, added {shown(first['added'], '.2f')}"
    )
