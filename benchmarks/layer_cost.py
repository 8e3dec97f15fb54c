"""What the serving layer costs: `python -m benchmarks.layer_cost` (or `make bench`).

Two parts, each against its peers in the same run: `echo` (no model: the layer's own ceiling) and
`dist` (LMI-Dist on a Llama of 100 million parameters: what is left of the engine's speed behind
HTTP). Prints tables; --json writes every single figure, and the tables as Markdown.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import layer_dist, layer_echo
from benchmarks.figures import machine
from benchmarks.layer_dist import DistPlan
from benchmarks.layer_echo import EchoPlan
from benchmarks.serving import real_time

COLUMNS: Final = 140
FULL_ECHO: Final = EchoPlan(requests={1: 150, 64: 768, 512: 2048}, repeats=3)
QUICK_ECHO: Final = EchoPlan(requests={1: 25, 64: 128}, repeats=1)
FULL_DIST: Final = DistPlan(requests={1: 4, 8: 24, 32: 96}, repeats=3, first_rounds=6)
QUICK_DIST: Final = DistPlan(requests={4: 4}, repeats=1, first_rounds=1)


def main() -> int:
    given = arguments()
    console = Console(width=COLUMNS)
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks.layer_cost", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "generator": " ".join(real_time()) or "at normal priority: chrt is not permitted",
        **machine(),
    }
    result: dict[str, Any] = {"facts": facts}
    texts = ["\n".join([f"* {name}: {value}" for name, value in facts.items()])]
    for line in texts[0].splitlines():
        console.print(line, highlight=False)
    if given.only in (None, "echo"):
        result["echo"] = layer_echo.run(QUICK_ECHO if given.quick else FULL_ECHO, console.print)
        drawn = layer_echo.grid(result["echo"])
        console.print(drawn.rich())
        texts.append(drawn.markdown())
    if given.only in (None, "dist"):
        plan = QUICK_DIST if given.quick else FULL_DIST
        result["dist"] = layer_dist.run(plan, given.model, console.print)
        drawn = layer_dist.grid(result["dist"])
        line = layer_dist.first_token_line(result["dist"])
        console.print(drawn.rich(), line)
        texts += [drawn.markdown(), line]
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
        given.json.with_suffix(".md").write_text("\n\n".join(texts) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.layer_cost", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute, without repeats")
    parser.add_argument("--only", choices=["echo", "dist"], help="one part only")
    parser.add_argument("--model", type=Path, help="keep the 100M model in this folder")
    parser.add_argument(
        "--json", type=Path, help="write all figures here, and the tables beside it as .md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
