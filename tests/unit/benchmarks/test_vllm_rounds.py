"""Figures of several runs stand in one file, and only turns that were side by side are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.vllm_rounds import STREAMED, WHOLE, Round, Rounds, ratios
from benchmarks.vllm_subjects import LMI_SERVE, OFFLINE, VLLM_SERVE
from benchmarks.vllm_tables import COLUMNS, grids


def rate(figures: dict[str, Any]) -> float:
    return float(figures["tokens_per_s"])


def figures(tokens_per_s: float, first: float) -> dict[str, Any]:
    return {
        "tokens_per_s": tokens_per_s,
        "first_ms": {"p50": first, "p95": 2 * first},
        "gap_ms": {"p50": 1.0, "p95": 2.0},
        "cpu_s_per_1000_tokens": {"front": 0.1, "engine": 0.5},
    }


def turn(
    subject: str, tokens_per_s: float, *, run: int = 1, repeat: int = 0, mode: str = STREAMED
) -> Round:
    return Round("5m", subject, mode, 8, run, repeat, figures(tokens_per_s, 1000 / tokens_per_s))


def test_a_ratio_is_of_turns_side_by_side() -> None:
    ours = [turn(LMI_SERVE, 100, repeat=0), turn(LMI_SERVE, 30, repeat=1)]
    peers = [turn(VLLM_SERVE, 20, repeat=1), turn(VLLM_SERVE, 50, repeat=0)]
    assert ratios(ours, peers, rate) == [2.0, 1.5]


def test_turns_of_different_runs_are_not_compared() -> None:
    ours = [turn(LMI_SERVE, 100, run=1), turn(LMI_SERVE, 90, run=2)]
    assert ratios(ours, [turn(VLLM_SERVE, 45, run=2)], rate) == [2.0]


def test_a_file_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert Rounds.read(path).rounds == []
    Rounds([{"time": "first"}], [turn(LMI_SERVE, 100)]).write(path)
    held = Rounds.read(path)
    held.facts.append({"time": "second"})
    held.rounds.append(turn(OFFLINE, 90, run=2, mode=WHOLE))
    held.write(path)
    assert Rounds.read(path) == held


@pytest.mark.parametrize("subject", [LMI_SERVE, VLLM_SERVE])
def test_the_table_has_each_ratio_in_its_column(subject: str) -> None:
    rounds = Rounds(
        [],
        [
            turn(VLLM_SERVE, 50),
            turn(LMI_SERVE, 100),
            turn(OFFLINE, 200, mode=WHOLE),
        ],
    )
    (drawn,) = grids(rounds)
    rows = {row[2]: row for section in drawn.sections for row in section}
    assert all(len(row) == len(COLUMNS) for row in rows.values())
    ours = subject == LMI_SERVE
    assert rows[subject][4] == ("2.00" if ours else "")
    assert rows[subject][6] == ("0.50" if ours else "0.25")
    assert rows[subject][9] == ("0.50" if ours else "")
    assert rows[OFFLINE][6] == ""


def test_whole_answers_without_a_first_token_have_their_row() -> None:
    given = [turn(subject, 50, mode=WHOLE) for subject in (VLLM_SERVE, LMI_SERVE)]
    for each in given:
        each.figures.update(first_ms={}, gap_ms={})
    (drawn,) = grids(Rounds([], given))
    rows = {row[2]: row for section in drawn.sections for row in section}
    assert rows[LMI_SERVE][4] == "1.00"
    assert rows[LMI_SERVE][7:13] == ("",) * 6
