"""Which waiting rows make a batch."""

from __future__ import annotations

from lmi.dist.messages import CoreRequest
from lmi.dist.padded.forming import Cost, Former, Together
from lmi.dist.padded.row import Row
from lmi.dist.sequence import Sequence

FREE = Cost(0, 0, 0)


def row(number: int, length: int, new_tokens: int = 4, *, prompt_logprobs: bool = False) -> Row:
    request = CoreRequest(
        number, (1,) * length, max_new_tokens=new_tokens, prompt_logprobs=prompt_logprobs
    )
    return Row(request.prompt, Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=999))


def form(
    together: Together,
    waiting: list[Row],
    *,
    max_rows: int = 8,
    cost: Cost = FREE,
    budget: int = 0,
) -> list[int]:
    former = Former(together, max_rows, cost, budget)
    return [found.key[0] for found in former.form(waiting)]


def test_padded_batches_take_all_in_the_order_of_arrival() -> None:
    waiting = [row(number, 1 + number % 3) for number in range(10)]
    assert form(Together.PADDED, waiting, max_rows=4) == [0, 1, 2, 3]


def test_equal_batches_take_those_as_long_as_the_oldest() -> None:
    waiting = [row(number, 1 + number % 3) for number in range(10)]
    assert form(Together.EQUAL, waiting) == [0, 3, 6, 9]


def test_a_model_that_mixes_rows_up_gets_one_at_a_time() -> None:
    assert form(Together.ALONE, [row(0, 2), row(1, 2)]) == [0]


def test_nobody_waiting_is_an_empty_batch() -> None:
    assert form(Together.PADDED, []) == []


def test_the_oldest_runs_even_if_it_is_too_large() -> None:
    assert form(Together.PADDED, [row(0, 9), row(1, 1)], cost=Cost(100, 0, 0), budget=50) == [0]


def test_rows_join_while_the_padded_state_fits() -> None:
    cost = Cost(row=10, read=2, generated=3)
    # Two rows, padded to 4 prompt and 5 answer tokens: 2 * (10 + 8 + 15).
    waiting = [row(0, 4, 1), row(1, 1, 5), row(2, 1, 1)]
    assert cost.of(2, 4, 5) == 66
    assert form(Together.PADDED, waiting, cost=cost, budget=66) == [0, 1]
    assert form(Together.PADDED, waiting, cost=cost, budget=65) == [0]
    assert form(Together.PADDED, waiting, cost=cost, budget=99) == [0, 1, 2]


def test_prompt_logprobs_are_computed_alone() -> None:
    waiting = [row(0, 2), row(1, 2, prompt_logprobs=True), row(2, 2)]
    assert form(Together.PADDED, waiting) == [0, 2]
    assert form(Together.PADDED, waiting[1:]) == [1]
