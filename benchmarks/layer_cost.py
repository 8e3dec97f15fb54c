"""What the serving layer costs: `python -m benchmarks.layer_cost` (or `make bench`).

Two parts, each against its peers in the same run: `echo` (no model: the layer's own ceiling) and
`dist` (LMI-Dist on a Llama of 100 million parameters: what is left of the engine's speed behind
HTTP). Prints tables; --json writes every single figure.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import layer_dist, layer_echo
from benchmarks.figures import machine
from benchmarks.layer_dist import DistPlan
from benchmarks.layer_echo import EchoPlan
from benchmarks.serving import real_time

COLUMNS = 132
FULL_ECHO = EchoPlan(concurrencies=(1, 64, 512), seconds=15.0, repeats=3)
QUICK_ECHO = EchoPlan(concurrencies=(1, 64), seconds=3.0, repeats=1)
FULL_DIST = DistPlan(requests={1: 4, 8: 24, 32: 96}, repeats=3, first_rounds=6)
QUICK_DIST = DistPlan(requests={1: 1, 8: 8}, repeats=1, first_rounds=1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.layer_cost", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, without repeats")
    parser.add_argument("--only", choices=["echo", "dist"], help="one part only")
    parser.add_argument("--model", type=Path, help="keep the 100M model in this folder")
    parser.add_argument("--json", type=Path, help="write all figures here")
    given = parser.parse_args()
    console = Console(width=COLUMNS)
    result: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.layer_cost", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "generator": " ".join(real_time()) or "at normal priority: chrt is not permitted",
    }
    for name in ("machine", "generator"):
        console.print(f"{name}: {result[name]}")
    if given.only in (None, "echo"):
        result["echo"] = layer_echo.run(QUICK_ECHO if given.quick else FULL_ECHO, console.print)
        console.print(layer_echo.table(result["echo"]))
    if given.only in (None, "dist"):
        plan = QUICK_DIST if given.quick else FULL_DIST
        result["dist"] = layer_dist.run(plan, given.model, console.print)
        console.print(layer_dist.table(result["dist"]))
        console.print(layer_dist.first_token_line(result["dist"]))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
