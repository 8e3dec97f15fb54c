"""The comparison's tables: a section for each model, mode and number of clients."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.figures import shown
from benchmarks.grid import Grid
from benchmarks.vllm_rounds import MODES, STREAMED, WHOLE, Rounds, ratios
from benchmarks.vllm_subjects import OFFLINE, VLLM_SERVE

COLUMNS: Final = (
    "clients",
    "answers",
    "what",
    "tokens/s",
    "of vllm serve",
    "of offline",
    "first token p50 ms",
    "p95",
    "of vllm serve",
    "between pieces p50 ms",
    "p95",
    "CPU ms per token, server",
    "engine",
)


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
    peer = rounds.of(model, VLLM_SERVE, mode, concurrency)
    bare = rounds.of(model, OFFLINE, WHOLE, concurrency)
    streams = [each for each in own if mode == STREAMED]
    gaps = [each.figures["gap_ms"] for each in streams if each.figures["gap_ms"]]
    drawn.row(
        str(concurrency),
        mode,
        subject,
        shown([_rate(each.figures) for each in own]),
        _shown_ratio([] if subject == VLLM_SERVE else ratios(own, peer, _rate)),
        _shown_ratio([] if subject == OFFLINE else ratios(own, bare, _rate)),
        shown([_first(each.figures) for each in streams], ",.1f"),
        shown([each.figures["first_ms"]["p95"] for each in streams], ",.1f"),
        _shown_ratio([] if subject == VLLM_SERVE else ratios(streams, peer, _first)),
        shown([gap["p50"] for gap in gaps], ",.1f"),
        shown([gap["p95"] for gap in gaps], ",.1f"),
        shown([_cpu(each.figures, "front") for each in own], ".3f"),
        shown([_cpu(each.figures, "engine") for each in own], ".3f"),
    )


def _shown_ratio(values: list[float]) -> str:
    return shown(values, ".2f") if values else ""


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["tokens_per_s"])


def _first(figures: dict[str, Any]) -> float:
    return float(figures["first_ms"]["p50"])


def _cpu(figures: dict[str, Any], part: str) -> float:
    """Seconds per 1,000 tokens are milliseconds per token."""
    return float(figures["cpu_s_per_1000_tokens"].get(part, 0.0))
