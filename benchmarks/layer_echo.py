"""What the layer costs without a model: the echo engine behind HTTP, alone, and a bare stream.

The three take turns in every repeat, so that what else the machine does hits all alike. A run is a
fixed number of requests in a closed loop, timed from the first byte sent to the last answer's end.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.direct import DirectPlan, direct
from benchmarks.figures import shown
from benchmarks.grid import Grid
from benchmarks.load import echo_prompts
from benchmarks.serving import free_port, lmi_serve, load, served

INPUT_TOKENS: Final = 32
OUTPUT_TOKENS: Final = 512
PROPERTIES: Final = "engine=echo\noption.max_rolling_batch_size=512\n"
SUBJECTS: Final = ("lmi serve", "bare stream", "engine alone")


@dataclass(frozen=True, slots=True)
class EchoPlan:
    """requests: how many in a run, by concurrency."""

    requests: Mapping[int, int]
    repeats: int


def run(plan: EchoPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, by subject and concurrency, one entry per repeat."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in SUBJECTS}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        (folder / "serving.properties").write_text(PROPERTIES)
        port, bare_port = free_port(), free_port()
        lmi = running.enter_context(served(lmi_serve(folder, port), port))
        command = [sys.executable, "-m", "benchmarks.bare_stream", "--port", str(bare_port)]
        bare = running.enter_context(served(command, bare_port))
        alone = running.enter_context(direct(folder))
        prompts = echo_prompts(INPUT_TOKENS)
        for repeat in range(plan.repeats):
            for concurrency, requests in plan.requests.items():
                say(f"echo, concurrency {concurrency}, repeat {repeat + 1} of {plan.repeats}")
                options = [
                    *("--concurrency", str(concurrency), "--requests", str(requests)),
                    *("--in", str(INPUT_TOKENS), "--out", str(OUTPUT_TOKENS)),
                ]
                directly = DirectPlan(prompts, OUTPUT_TOKENS, concurrency, requests=requests)
                figures = (load(lmi, *options), load(bare, *options), alone.run(directly))
                for name, each in zip(SUBJECTS, figures, strict=True):
                    found[name].setdefault(str(concurrency), []).append(each)
    return {
        "shape": f"{INPUT_TOKENS} tokens in, {OUTPUT_TOKENS} out, streamed",
        "properties": PROPERTIES,
        "found": found,
    }


def grid(result: dict[str, Any]) -> Grid:
    """Medians of the repeats, with least and most."""
    drawn = Grid(
        f"The layer without a model: {result['shape']}; median (least to most) of repeats",
        (
            "concurrency",
            "what",
            "requests/s",
            "tokens/s",
            "its CPU s per 1,000 tokens",
            "first token p50 ms",
            "each token p50 ms",
            "generator's CPU share",
        ),
    )
    found = result["found"]
    for concurrency in found[SUBJECTS[0]]:
        for name in SUBJECTS:
            runs = found[name][concurrency]
            each = [run["each_token_ms"]["p50"] for run in runs if run["each_token_ms"]]
            shares = [run["generator_cpu_share"] for run in runs if run["generator_cpu_share"]]
            drawn.row(
                concurrency,
                name,
                shown([run["requests_per_s"] for run in runs], ",.1f"),
                shown([run["tokens_per_s"] for run in runs]),
                shown([run["cpu_s_per_1000_tokens"]["front"] for run in runs], ".4f"),
                shown([run["first_ms"]["p50"] for run in runs], ",.2f"),
                shown(each, ".3f"),
                shown(shares, ".0%"),
            )
        drawn.section()
    return drawn
