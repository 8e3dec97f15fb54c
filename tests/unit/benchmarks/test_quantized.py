"""What low-bit rows may weigh, and which of them are told to break it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.quantized.limits import beyond, share
from benchmarks.quantized.results import Found
from benchmarks.quantized.rows import BASE, NATIVE
from benchmarks.quantized.tables import LARGE, broken, reached

LINEARS = int(LARGE)
DENSE = Found(
    "100m",
    NATIVE,
    BASE,
    16,
    LINEARS,
    facts={"bytes held": str(2 * LINEARS + 500), "bytes counted": str(2 * LINEARS)},
    rates={"1": [9.0, 10.0, 11.0]},
)


def low(bits: int, held: int, counted: int, rate: float = 12.0) -> Found:
    facts = {"bytes held": str(held), "bytes counted": str(counted)}
    return replace(DENSE, method=f"gptq-{bits}", bits=bits, facts=facts, rates={"1": [rate]})


def test_a_share_is_of_the_linear_layers_alone():
    assert share(process=1500, base=3000, numbers=1000) == 0.25


@pytest.mark.parametrize(("bits", "most"), [(3, 0.26), (4, 0.32), (8, 0.55)])
def test_each_width_has_its_limit(bits: int, most: float):
    assert beyond("row", bits, most) is None
    assert "at most" in (beyond("row", bits, most + 0.001) or "")


def test_wide_numbers_have_no_limit():
    assert beyond("row", 32, 9.0) is None


def test_a_row_is_held_to_what_its_process_holds_and_to_what_its_engine_counts():
    fine = low(4, LINEARS // 2, LINEARS // 2)
    assert broken([DENSE, fine]) == []
    assert len(broken([DENSE, low(4, LINEARS // 2, LINEARS)])) == 1
    assert len(broken([DENSE, low(4, LINEARS, LINEARS // 2)])) == 1
    assert len(broken([DENSE, low(4, LINEARS, LINEARS)])) == 2


def test_a_row_that_did_not_load_breaks_nothing():
    assert broken([DENSE, replace(low(4, LINEARS, LINEARS), why="it did not load")]) == []


def test_the_goal_is_met_only_where_low_bits_are_faster():
    lines = reached([DENSE, low(4, 1, 1, rate=12.0), low(8, 1, 1, rate=9.5)])
    assert lines == [
        "100m, gptq-4: met, 1.20 times as fast",
        "100m, gptq-8: NOT met, 0.95 times as fast",
    ]
