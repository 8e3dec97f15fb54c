"""Every quantisation by every engine: `python -m benchmarks.quantization`, or `make
bench-quantization`.

    [--quick] [--models 5m,100m] [--engines ...] [--methods ...] [--folder FOLDER] [--json FILE]

Each row is a process of its own: what it holds, how far its scores are from transformers' in
float32 over held-back text, and tokens per second at 1 and 16 requests at once. The rows of an
engine are loaded one after the other, then take turns, round by round; those whose turn it is not
are stopped. Models and checkpoints are kept in --folder. --json FILE keeps every row as soon as it
is measured, with the table beside it as Markdown; the same command goes on with what is missing.

Bytes of the linear layers, "process": bfloat16's, more or less what the process holds more or less
than its engine's own bfloat16 process (anonymous memory, and resident pages of weight files, after
loading, less before); both have the same KV cache. "counted": what the objects that compute the
layers say. "Logit error": ||a - b|| / ||b|| of all scores, each row less its mean, since some
engines tell logarithms of probabilities. Ends with 1 where a row takes more than its bits allow.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.figures import machine, names
from benchmarks.offline.loop import Job
from benchmarks.offline.process import SubjectFailed, SubjectProcess
from benchmarks.offline.serve import Setting
from benchmarks.quantized.models import KINDS, PreparationFailed, Prepared, prepare
from benchmarks.quantized.results import Found, Results
from benchmarks.quantized.rows import BASE, ENGINES, METHODS, QUICK, ROWS, Row
from benchmarks.quantized.tables import broken, reached, table

COLUMNS: Final = 190
CONCURRENCY: Final = (1, 16)
REPEATS: Final = 3
INPUT: Final = 16  # tokens of a request
OUTPUT: Final = 32
WARM_OUTPUT: Final = 4
MAX_TOKENS: Final = 256
VOCABULARY: Final = 2000  # ids of prompts are below it: every model has them
READY_SECONDS: Final = 180.0
JOB_SECONDS: Final = 120.0
MINUTES: Final = 25.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run over a results' file."""

    results: Results
    file: Path | None
    home: Path
    say: Say
    threads: int
    repeats: int
    until: float

    def run(self, model: str, rows: Sequence[Row]) -> None:
        """All that is missing of a model, engine by engine."""
        try:
            prepared = prepare(model, self.home, self.say)
        except (PreparationFailed, subprocess.TimeoutExpired) as failed:
            self.say(f"{model}: {failed}")
            return
        for engine, group in groupby(rows, lambda row: row.engine):
            if time.monotonic() > self.until:
                self.say(f"{model}, {engine}: left for another run")
                continue
            self._engine(prepared, list(group))

    def _engine(self, prepared: Prepared, rows: list[Row]) -> None:
        missing = [
            row for row in rows if not self._found(prepared, row).done(CONCURRENCY, self.repeats)
        ]
        if not missing:
            return
        with ExitStack() as stack:
            live: list[tuple[Row, SubjectProcess]] = []
            for row in missing:
                process = self._load(prepared, row)
                if process is not None:
                    live.append((row, stack.enter_context(process)))
            for repeat in range(self.repeats):
                order = list(live)
                random.Random(repeat).shuffle(order)
                for row, process in order:
                    if not self._rounds(prepared, row, process):
                        live.remove((row, process))

    def _load(self, prepared: Prepared, row: Row) -> SubjectProcess | None:
        found = self._found(prepared, row)
        self.say(f"{prepared.kind.name}: {row.name}")
        try:
            checkpoint = prepared.checkpoint(row.checkpoint, self.say)
            process = SubjectProcess(
                row.subject(),
                self._setting(prepared, row, checkpoint),
                home=self.home,
                ready_limit=READY_SECONDS,
            )
        except (SubjectFailed, PreparationFailed, subprocess.TimeoutExpired) as failed:
            found.why = _why(failed)
            self.results.write(self.file)
            return None
        found.facts, found.ready = process.facts, process.ready_seconds
        try:
            process.run(job(CONCURRENCY[-1], WARM_OUTPUT), JOB_SECONDS)
        except SubjectFailed as failed:
            found.why = _why(failed)
        self.results.write(self.file)
        return process if found.why is None else None

    def _rounds(self, prepared: Prepared, row: Row, process: SubjectProcess) -> bool:
        """One of each concurrency. False where the subject is gone."""
        found = self._found(prepared, row)
        for count in CONCURRENCY:
            work = job(count, OUTPUT)
            try:
                done = process.run(work, JOB_SECONDS)
            except SubjectFailed as failed:
                found.why = _why(failed)
                self.results.write(self.file)
                return False
            found.rates.setdefault(str(count), []).append(sum(work.outputs) / done.seconds)
        self.results.write(self.file)
        return True

    def _found(self, prepared: Prepared, row: Row) -> Found:
        key = f"{prepared.kind.name}, {row.name}"
        if key not in self.results.rows:
            self.results.rows[key] = Found(
                prepared.kind.name, row.engine, row.method, row.bits, prepared.linears
            )
        return self.results.rows[key]

    def _setting(self, prepared: Prepared, row: Row, checkpoint: Path) -> Setting:
        files = {"windows": str(prepared.windows), "reference": str(prepared.reference)}
        return Setting(
            model=str(checkpoint),
            dtype=row.dtype,
            threads=self.threads,
            max_batch=CONCURRENCY[-1],
            max_tokens=MAX_TOKENS,
            options=dict(row.subject().options) | files,
        )


def job(concurrency: int, output: int) -> Job:
    """Prompts of random ids, the same for every engine."""
    rng = random.Random(concurrency)
    prompts = [[rng.randrange(3, VOCABULARY) for _ in range(INPUT)] for _ in range(concurrency)]
    return Job(prompts, [output] * concurrency, concurrency)


def main() -> int:
    given = arguments()
    console = Console(width=COLUMNS)
    results = Results.read(given.json)
    command = shlex.join(["python", "-m", "benchmarks.quantization", *sys.argv[1:]])
    results.session(command, machine() | {"threads": str(given.threads)})
    with ExitStack() as stack:
        home = given.folder
        if home is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        measurement = Measurement(
            results,
            given.json,
            home.resolve(),
            lambda line: console.print(line, highlight=False),
            given.threads,
            given.repeats,
            time.monotonic() + 60 * given.minutes,
        )
        for model in given.models:
            measurement.run(model, given.rows)
    grids = [table(model, results.rows.values()) for model in KINDS if _any(results, model)]
    for grid in grids:
        console.print(grid.rich())
    wrong = broken(results.rows.values())
    for line in wrong:
        console.print(f"* {line}", highlight=False)
    goals = reached(results.rows.values())
    for line in goals:
        console.print(f"* {line}", highlight=False)
    if given.json is not None:
        results.write(given.json)
        facts = ["\n".join([f"* {k}: {v}" for k, v in one.items()]) for one in results.sessions]
        ends = [("Beyond their limit", wrong), ("Faster than bfloat16 at 1", goals)]
        told = [
            f"{name}:\n\n" + "\n".join([f"* {w}" for w in lines]) for name, lines in ends if lines
        ]
        text = "\n\n".join([*facts, *[grid.markdown() for grid in grids], *told])
        given.json.with_suffix(".md").write_text(text + "\n")
    return 1 if wrong else 0


def _why(failed: SubjectFailed) -> str:
    """From the name of the last error on, without this machine's paths."""
    text = " ".join(str(failed).split())
    errors = list(re.finditer(r"\b\w+(Error|Exception): ", text))
    return (text[errors[-1].start() :] if errors else text).replace(f"{Path.cwd()}/", "")


def _any(results: Results, model: str) -> bool:
    return any(row.model == model for row in results.rows.values())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.quantization",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="the demo model, few rows, one repeat")
    parser.add_argument("--models", type=names(KINDS), help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--engines", type=names(ENGINES), help=f"of: {', '.join(ENGINES)}")
    parser.add_argument("--methods", type=names(METHODS), help=f"of: {', '.join(METHODS)}")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int)
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="no engine begins later (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="keep models and checkpoints here")
    parser.add_argument("--json", type=Path, help="keep all figures here, and add what is missing")
    given = parser.parse_args()
    given.models = given.models or (["demo"] if given.quick else ["5m", "100m"])
    given.repeats = given.repeats or (1 if given.quick else REPEATS)
    narrow = given.engines or given.methods
    given.rows = [
        row
        for row in (QUICK if given.quick and not narrow else ROWS)
        if not given.engines or row.engine in given.engines
        if not given.methods or row.method in (*given.methods, BASE)
    ]
    return given


if __name__ == "__main__":
    sys.exit(main())
