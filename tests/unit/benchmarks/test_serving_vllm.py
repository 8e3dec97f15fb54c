"""Subjects take turns: each cell once in a repeat, all subjects of a cell side by side."""

from __future__ import annotations

from collections import Counter

from benchmarks.serving_vllm import Plan
from benchmarks.vllm_rounds import MODES, STREAMED
from benchmarks.vllm_subjects import LMI_SERVE, OFFLINE, VLLM_SERVE

PLAN = Plan("5m", "float32", (OFFLINE, VLLM_SERVE, LMI_SERVE), MODES, {1: 10, 8: 56}, repeats=3)


def test_every_repeat_has_each_cell_once() -> None:
    turns = Counter(PLAN.turns(seed=1))
    assert set(turns.values()) == {1}
    assert len(turns) == 3 * 2 * 5  # repeats, clients, and two modes of two servers and offline


def test_offline_answers_are_whole() -> None:
    assert not [turn for turn in PLAN.turns(seed=1) if turn[2:] == (STREAMED, OFFLINE)]


def test_subjects_take_their_turns_side_by_side() -> None:
    places = [turn[:2] for turn in PLAN.turns(seed=1)]
    assert places == sorted(places)  # all of a repeat and a number of clients, then the next


def test_the_order_of_subjects_differs_from_repeat_to_repeat() -> None:
    turns = list(PLAN.turns(seed=1))
    orders = {tuple(turn[2:] for turn in turns if turn[0] == repeat) for repeat in range(3)}
    assert len(orders) > 1
