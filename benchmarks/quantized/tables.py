"""The table of a model: what each row holds, loses and yields, beside bfloat16 of its engine."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks.figures import shown
from benchmarks.grid import Grid
from benchmarks.quantized.limits import BFLOAT16_BYTES, beyond, share
from benchmarks.quantized.results import Found
from benchmarks.quantized.rows import BASE, NATIVE

COLUMNS = (
    "engine, method",
    "bits",
    "linear MB: process",
    "counted",
    "of bf16",
    "logit error",
    "top-1",
    "perplexity",
    "tokens/s at 1",
    "of bf16",
    "at 16",
    "of bf16",
    "load s",
)
MB = 1e6
BITS_OF_BASE = 16


def table(model: str, rows: Iterable[Found]) -> Grid:
    """One line per row; a failure says why."""
    found = [row for row in rows if row.model == model]
    base = {row.engine: row for row in found if row.method == BASE and row.why is None}
    perplexity = [row.facts["reference perplexity"] for row in found if row.facts]
    told = f"; perplexity of the reference {float(perplexity[0]):.2f}" if perplexity else ""
    grid = Grid(f"{model}{told}", COLUMNS)
    engine = None
    for row in found:
        if engine not in (None, row.engine):
            grid.section()
        engine = row.engine
        grid.row(*_cells(row, base.get(row.engine)))
    return grid


def process_share(row: Found, base: Found) -> float:
    """See `limits.share`."""
    held, dense = int(row.facts["bytes held"]), int(base.facts["bytes held"])
    return share(held, dense, row.linears)


def broken(rows: Iterable[Found]) -> list[str]:
    """The limits that rows break, by what the engine counts and by what the process holds.

    The process is asked where the linear layers are large beside what else moves in it.
    """
    rows = list(rows)
    base = {(row.model, row.engine): row for row in rows if row.method == BASE and not row.why}
    found = []
    for row in rows:
        if row.why is not None or not row.facts:
            continue
        name = f"{row.model}, {row.engine}, {row.method}"
        counted = int(row.facts["bytes counted"]) / (row.linears * BFLOAT16_BYTES)
        found.append(beyond(f"{name}, counted", row.bits, counted))
        dense = base.get((row.model, row.engine))
        if dense is not None and row.linears * BFLOAT16_BYTES >= LARGE:
            found.append(beyond(f"{name}, process", row.bits, process_share(row, dense)))
    return [line for line in found if line is not None]


def reached(rows: Iterable[Found]) -> list[str]:
    """Whether our own decoder's low-bit rows are faster than its bfloat16 for one request."""
    ours = [row for row in rows if row.engine == NATIVE and row.rates.get("1")]
    base = {row.model: median(row.rates["1"]) for row in ours if row.method == BASE}
    found = []
    for row in ours:
        if row.bits < BITS_OF_BASE and row.model in base:
            ratio = median(row.rates["1"]) / base[row.model]
            word = "met" if ratio > 1 else "NOT met"
            found.append(f"{row.model}, {row.method}: {word}, {ratio:.2f} times as fast")
    return found


LARGE = 100e6  # bytes: a process's other memory differs by some megabytes from start to start


def _cells(row: Found, base: Found | None) -> list[str]:
    if row.why is not None:
        return [f"{row.engine}, {row.method}", str(row.bits), f"does not load: {row.why}"] + [
            ""
        ] * (len(COLUMNS) - 3)
    facts = row.facts
    of_bf16 = None if base is None else process_share(row, base)
    return [
        f"{row.engine}, {row.method}",
        str(row.bits),
        "" if of_bf16 is None else f"{of_bf16 * row.linears * BFLOAT16_BYTES / MB:.1f}",
        f"{int(facts['bytes counted']) / MB:.1f}",
        "" if of_bf16 is None else f"{of_bf16:.3f}",
        f"{float(facts['relative error']):.4f}",
        f"{float(facts['top1']):.3f}",
        f"{float(facts['perplexity']):.2f}",
        *_rates(row, base, "1"),
        *_rates(row, base, "16"),
        f"{float(facts['load seconds']):.1f}",
    ]


def _rates(row: Found, base: Found | None, concurrency: str) -> tuple[str, str]:
    mine = row.rates.get(concurrency, [])
    theirs = base.rates.get(concurrency, []) if base is not None else []
    ratio = f"{median(mine) / median(theirs):.2f}" if mine and theirs else ""
    return shown(mine, ",.1f"), ratio
