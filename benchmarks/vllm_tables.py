"""The comparison's tables: a section for each model, mode and number of clients."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.figures import shown
from benchmarks.grid import Grid
from benchmarks.vllm_rounds import MODES, STREAMED, WHOLE, Rounds, ratios
from benchmarks.vllm_subjects import (
    JAVA_ASYNC,
    JAVA_ROLLING,
    LMI_INVOCATIONS,
    LMI_SERVE,
    OFFLINE,
    STOCK_ASYNC,
    STOCK_ROLLING,
    VLLM_SERVE,
)

COLUMNS: Final = (
    "clients",
    "answers",
    "what",
    "tokens/s",
    "of vllm serve",
    "of stock handlers",
    "of offline",
    "first token p50 ms",
    "p95",
    "of vllm serve",
    "of stock handlers",
    "between pieces p50 ms",
    "p95",
    "CPU ms per token, server",
    "engine",
)
# Whose rate and first token stand in the columns of the stock handlers: those of the same mode, and
# for our server the faster ones.
STOCK: Final = {
    JAVA_ROLLING: STOCK_ROLLING,
    JAVA_ASYNC: STOCK_ASYNC,
    LMI_SERVE: STOCK_ASYNC,
    LMI_INVOCATIONS: STOCK_ASYNC,
}


def grids(rounds: Rounds) -> list[Grid]:
    """One for each model: medians with least and most, and ratios of turns side by side."""
    models = sorted({each.model for each in rounds.rounds})
    return [_grid(rounds, model) for model in models]


def _grid(rounds: Rounds, model: str) -> Grid:
    drawn = Grid(
        f"vLLM behind servers, {model}: median (least to most); ratios turn by turn", COLUMNS
    )
    held = [each for each in rounds.rounds if each.model == model]
    subjects = list(dict.fromkeys([each.subject for each in held]))
    for concurrency in sorted({each.concurrency for each in held}):
        for mode in MODES:
            for subject in subjects:
                _row(rounds, drawn, (model, subject, mode, concurrency))
        drawn.section()
    return drawn


def _row(rounds: Rounds, drawn: Grid, cell: tuple[str, str, str, int]) -> None:
    model, subject, mode, concurrency = cell
    own = rounds.of(*cell)
    if not own:
        return
    served = [] if subject == VLLM_SERVE else rounds.of(model, VLLM_SERVE, mode, concurrency)
    stock = rounds.of(model, STOCK.get(subject, ""), mode, concurrency)
    bare = [] if subject == OFFLINE else rounds.of(model, OFFLINE, WHOLE, concurrency)
    streams = own if mode == STREAMED else []
    gaps = [each.figures["gap_ms"] for each in streams if each.figures["gap_ms"]]
    drawn.row(
        str(concurrency),
        mode,
        subject,
        _shown([_rate(each.figures) for each in own]),
        _shown(ratios(own, served, _rate), ".2f"),
        _shown(ratios(own, stock, _rate), ".2f"),
        _shown(ratios(own, bare, _rate), ".2f"),
        _shown([_first(each.figures) for each in streams], ",.1f"),
        _shown([each.figures["first_ms"]["p95"] for each in streams], ",.1f"),
        _shown(ratios(streams, served, _first), ".2f"),
        _shown(ratios(streams, stock, _first), ".2f"),
        _shown([gap["p50"] for gap in gaps], ",.1f"),
        _shown([gap["p95"] for gap in gaps], ",.1f"),
        _shown([_cpu(each.figures, "front") for each in own], ".3f"),
        _shown([_cpu(each.figures, "engine") for each in own], ".3f"),
    )


def _shown(values: list[float], form: str = ",.0f") -> str:
    return shown(values, form) if values else ""


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["tokens_per_s"])


def _first(figures: dict[str, Any]) -> float:
    """Milliseconds; 0 for a whole answer, which has no first token."""
    return float(figures["first_ms"].get("p50", 0.0))


def _cpu(figures: dict[str, Any], part: str) -> float:
    """Seconds per 1,000 tokens are milliseconds per token."""
    return float(figures["cpu_s_per_1000_tokens"].get(part, 0.0))
