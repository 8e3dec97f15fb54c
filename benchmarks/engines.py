"""Engines against each other, offline: `python -m benchmarks.engines` (or `make bench-engines`).

Random models of about 100 million parameters, two families, two precisions; every engine in a
process and an environment of its own, with the same threads and the same ids; one works at a time
and they take turns in each repeat. Greedy, exactly as many new tokens as asked for, no tokenizer,
no prefix cache. --json FILE keeps all figures (and tables beside it as Markdown); a run with a FILE
that exists adds what is missing there, so a long measurement can be taken in pieces.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.figures import machine, names
from benchmarks.offline.compare import Comparison, Limits, Measurement
from benchmarks.offline.records import Group, Records
from benchmarks.offline.subjects import DEFAULT, OURS, REFERENCE, SUBJECTS
from benchmarks.offline.tables import tables
from benchmarks.offline.weights import BYTES, SHAPES

COLUMNS: Final = 170
LENGTHS: Final = ((64, 64), (512, 128))
CONCURRENCY: Final = (1, 8, 16, 32)
MINUTES: Final = 35.0


def main() -> int:
    given = arguments()
    console = Console(width=COLUMNS)
    records = Records() if given.json is None else Records.read(given.json)
    records.session(shlex.join(["python", "-m", "benchmarks.engines", *sys.argv[1:]]), machine())
    with ExitStack() as stack:
        home = given.home
        if home is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        _measure(given, records, home.resolve(), lambda line: console.print(line, highlight=False))
    grids, reasons = tables(records)
    for grid in grids:
        console.print(grid.rich())
    for line in reasons:
        console.print(f"* {line}", highlight=False)
    if given.json is not None:
        records.write(given.json)
        given.json.with_suffix(".md").write_text(markdown(records))
    return 0


def markdown(records: Records) -> str:
    """Facts, tables, and what is missing."""
    grids, reasons = tables(records)
    parts = [
        "\n".join([f"* {name}: {value}" for name, value in one.items()]) for one in records.sessions
    ]
    parts += [grid.markdown() for grid in grids]
    if reasons:
        parts.append("Missing:\n\n" + "\n".join([f"* {line}" for line in reasons]))
    return "\n\n".join(parts) + "\n"


def _measure(
    given: argparse.Namespace, records: Records, home: Path, say: Callable[[str], None]
) -> None:
    """Each group gets its share of the time; what one leaves is the next ones'."""
    asked = [
        Comparison(
            Group(shape, dtype, threads),
            given.subjects,
            given.lengths,
            given.concurrency,
            given.repeats,
        )
        for threads in given.threads
        for shape in given.shapes
        for dtype in given.dtypes
    ]
    measurement = Measurement(
        records, home, Limits(slow=given.slow), say, lambda: _save(given, records)
    )
    end = time.monotonic() + 60 * given.minutes
    for place, comparison in enumerate(asked):
        now = time.monotonic()
        until = now + (end - now) / (len(asked) - place)
        measurement.run(comparison, until)


def _save(given: argparse.Namespace, records: Records) -> None:
    if given.json is not None:
        records.write(given.json)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.engines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="under a minute: a tiny model, without peers to install",
    )
    parser.add_argument("--subjects", type=names(SUBJECTS), help=f"of: {', '.join(SUBJECTS)}")
    parser.add_argument("--shapes", type=names(SHAPES), help=f"of: {', '.join(SHAPES)}")
    parser.add_argument("--dtypes", type=names(BYTES), help=f"of: {', '.join(BYTES)}")
    parser.add_argument("--threads", type=_numbers, help="default: the number of cores")
    parser.add_argument("--lengths", type=_lengths, help="tokens in:out, as 64:64,512:128")
    parser.add_argument("--concurrency", type=_numbers, help="as 1,8,16,32")
    parser.add_argument("--repeats", type=int)
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="no round begins later (default: %(default)s)",
    )
    parser.add_argument(
        "--slow",
        type=float,
        default=Limits().slow,
        help="seconds; a round that takes longer is not repeated, nor more concurrency tried",
    )
    parser.add_argument(
        "--home", type=Path, help="keep models and what peers compile in this folder"
    )
    parser.add_argument("--json", type=Path, help="keep all figures here, and add what is missing")
    given = parser.parse_args()
    quick = given.quick
    given.subjects = given.subjects or ([OURS, REFERENCE] if quick else list(DEFAULT))
    given.shapes = given.shapes or (["llama-tiny"] if quick else ["llama-100m", "qwen2-125m"])
    given.dtypes = given.dtypes or (["float32"] if quick else ["float32", "bfloat16"])
    given.threads = given.threads or [os.cpu_count() or 1]
    given.lengths = given.lengths or ([(32, 16)] if quick else list(LENGTHS))
    given.concurrency = given.concurrency or ([1, 8] if quick else list(CONCURRENCY))
    given.repeats = given.repeats or (2 if quick else 3)
    return given


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _lengths(text: str) -> list[tuple[int, int]]:
    pairs = []
    for part in text.split(","):
        inputs, _, outputs = part.partition(":")
        pairs.append((int(inputs), int(outputs)))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
