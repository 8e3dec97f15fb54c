"""Writes the tables of docs/quantization.md from lmi/config/quantization; --check only compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lmi.config.quantization.hardware import CPU, Hardware
from lmi.config.quantization.methods import METHODS
from lmi.config.quantization.table import ENGINES, ROWS, TITLES, Row, Way

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "quantization.md"

_START, _END = "<!-- table: {} -->", "<!-- end of table -->"
_COLUMNS = [engine for engine in ENGINES if any(engine in row.columns for row in ROWS)]
_NEWEST_GPU = Hardware("gpu", (99, 0))  # beyond any capability that a kernel may ask for


def document() -> str:
    """The page with its tables as the code has them. Raises ValueError where a mark is missing."""
    text = DOCUMENT.read_text(encoding="utf-8")
    tables = {
        "names": _names(),
        "checkpoints": _rows(Way.CHECKPOINT),
        "at load": _rows(Way.AT_LOAD),
        "nowhere": _nowhere(),
    }
    for name, lines in tables.items():
        head, start, rest = text.partition(_START.format(name))
        _, end, tail = rest.partition(_END)
        if not start or not end:
            raise ValueError(f"docs/quantization.md has no place for the table {name!r}")
        text = f"{head}{start}\n" + "".join(f"{line}\n" for line in lines) + f"{end}{tail}"
    return text


def _names() -> Iterator[str]:
    yield "| `option.quantize` | What it is | Older and other names |"
    yield "|---|---|---|"
    gone = {row.method for row in ROWS if not row.columns}
    for method in METHODS:
        if method.name in gone:
            continue
        names = ", ".join(f"`{name}`" for name in method.synonyms)
        yield f"| `{method.name}` | {method.doc} | {names} |"


def _rows(way: Way) -> Iterator[str]:
    yield f"| | `option.quantize` | {' | '.join(TITLES[engine] for engine in _COLUMNS)} |"
    yield "|---" * (len(_COLUMNS) + 2) + "|"
    for row in ROWS:
        if row.way is way and row.columns:
            cells = " | ".join(_cell(row, engine) for engine in _COLUMNS)
            yield f"| {row.title} | `{row.method}` | {cells} |"


def _nowhere() -> Iterator[str]:
    yield from (f"* `{row.method}`: {row.otherwise}" for row in ROWS if not row.columns)


def _cell(row: Row, engine: str) -> str:
    on_cpu = row.refused(engine, CPU)
    on_gpu = row.refused(engine, _NEWEST_GPU)
    if on_cpu is not None and on_gpu is not None:
        return f"no: {on_gpu}" if engine in row.missing else "no"
    cell = row.columns[engine]
    gpus = "GPU"
    if cell.capability > (0, 0):
        gpus = f"GPU from {cell.capability[0]}.{cell.capability[1]}"
    where = [name for name, why in (("CPU", on_cpu), (gpus, on_gpu)) if why is None]
    parts = [", ".join(where), cell.note]
    if cell.needs:
        parts.append(f"needs {' and '.join(cell.needs)}")
    return "; ".join(part for part in parts if part)


def main() -> int:
    """Exit code 1 where --check finds another text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is stale")
    check = parser.parse_args().check
    text = document()
    if not check:
        DOCUMENT.write_text(text, encoding="utf-8")
        return 0
    if DOCUMENT.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/quantization.md is stale: run tools/write_quantization_doc.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
