"""What the layer costs without a model: the echo engine behind HTTP, alone, and a bare stream.

The three take turns in every repeat, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.direct import DirectPlan, direct
from benchmarks.figures import shown
from benchmarks.load import echo_prompts
from benchmarks.serving import free_port, lmi_serve, load, served

INPUT_TOKENS: Final = 32
OUTPUT_TOKENS: Final = 512
PROPERTIES: Final = "engine=echo\noption.max_rolling_batch_size=512\n"
SUBJECTS: Final = ("lmi serve", "bare stream", "engine alone")


@dataclass(frozen=True, slots=True)
class EchoPlan:
    """seconds: measured for each subject, concurrency and repeat."""

    concurrencies: Sequence[int]
    seconds: float
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
            for concurrency in plan.concurrencies:
                say(f"echo, concurrency {concurrency}, repeat {repeat + 1} of {plan.repeats}")
                options = [
                    *("--concurrency", str(concurrency), "--seconds", str(plan.seconds)),
                    *("--in", str(INPUT_TOKENS), "--out", str(OUTPUT_TOKENS)),
                ]
                directly = DirectPlan(prompts, OUTPUT_TOKENS, concurrency, plan.seconds, 1.0)
                figures = (load(lmi, *options), load(bare, *options), alone.run(directly))
                for name, each in zip(SUBJECTS, figures, strict=True):
                    found[name].setdefault(str(concurrency), []).append(each)
    return {
        "shape": f"{INPUT_TOKENS} tokens in, {OUTPUT_TOKENS} out, streamed",
        "properties": PROPERTIES,
        "found": found,
    }


def table(result: dict[str, Any]) -> Table:
    """Medians of the repeats, with least and most."""
    drawn = Table(
        "concurrency",
        "what",
        "requests/s",
        "tokens/s",
        "CPU s per 1,000 tokens",
        "first token p50 ms",
        "each token p50 ms",
        title=f"The layer without a model: {result['shape']}; median (least to most) of repeats",
    )
    found = result["found"]
    for concurrency in found[SUBJECTS[0]]:
        for name in SUBJECTS:
            runs = found[name][concurrency]
            drawn.add_row(
                concurrency,
                name,
                shown([run["requests_per_s"] for run in runs], ",.1f"),
                shown([run["tokens_per_s"] for run in runs]),
                shown([run["cpu_s_per_1000_tokens"].get("front", 0.0) for run in runs], ".4f"),
                shown([run["first_ms"]["p50"] for run in runs if run["first_ms"]], ",.2f"),
                shown([run["each_token_ms"]["p50"] for run in runs if run["each_token_ms"]], ".3f"),
            )
        drawn.add_section()
    return drawn
