"""The planner without torch: schedule, make up an answer, look."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.dist.messages import CoreRequest
from lmi.dist.plan import Plan
from lmi.dist.scheduler import LOGPROB_CHUNK, Scheduler
from lmi.dist.sequence import Sequence

BLOCK = 4
NO_END = frozenset[int]()


def sequence(number: int, prompt: int, answer: int, *, prompt_logprobs: bool = False) -> Sequence:
    request = CoreRequest(
        number, (7,) * prompt, max_new_tokens=answer, prompt_logprobs=prompt_logprobs
    )
    return Sequence.of(request, 0, eos_ids=NO_END, max_model_len=prompt + answer)


def scheduler(*, blocks: int = 100, max_batch: int = 8, prefill_tokens: int = 64) -> Scheduler:
    return Scheduler(
        blocks=blocks, block_size=BLOCK, max_batch=max_batch, prefill_tokens=prefill_tokens
    )


def advance(planner: Scheduler, plan: Plan) -> list[Sequence]:
    """What the core does after a forward pass; returns the sequences that ended."""
    for segment in plan.prefill:
        planner.computed(segment.sequence, segment.stop)
    for one in plan.decode:
        planner.computed(one, one.done + 1)
    ended = []
    for one in plan.rows:
        one.tokens.append(9)
        if len(one.tokens) >= one.stop_at:
            planner.remove(one)
            ended.append(one)
    return ended


def segments(plan: Plan) -> list[tuple[int, int, int]]:
    return [(s.sequence.request.id, s.start, s.stop) for s in plan.prefill]


def ids(sequences: list[Sequence]) -> list[int]:
    return [one.request.id for one in sequences]


def test_a_long_prompt_is_computed_in_chunks_between_the_others_decode_steps() -> None:
    planner = scheduler(prefill_tokens=10)
    planner.add(sequence(0, 6, 20))
    advance(planner, planner.schedule())
    planner.add(sequence(1, 25, 5))
    seen = []
    for _ in range(4):
        plan = planner.schedule()
        seen.append((ids(plan.decode), segments(plan)))
        advance(planner, plan)
    assert seen == [
        ([0], [(1, 0, 10)]),
        ([0], [(1, 10, 20)]),
        ([0], [(1, 20, 25)]),
        ([0, 1], []),
    ]
    assert planner.chunks == 2


def test_requests_start_in_the_order_they_came() -> None:
    planner = scheduler(prefill_tokens=10, max_batch=2)
    for number, prompt in enumerate([8, 8, 1]):
        planner.add(sequence(number, prompt, 2))
    plan = planner.schedule()
    assert segments(plan) == [(0, 0, 8), (1, 0, 2)]
    assert ids(plan.admitted) == [0, 1]
    advance(planner, plan)
    # 0 decodes its last token; 2 has to wait for a place although it would fit the budget.
    plan = planner.schedule()
    assert (ids(plan.decode), segments(plan)) == ([0], [(1, 2, 8)])
    advance(planner, plan)
    # A prompt of one token has nothing to prefill.
    assert ids(planner.schedule().decode) == [1, 2]


def test_the_youngest_gives_way_and_comes_back_first() -> None:
    planner = scheduler(blocks=7)
    old, young, waiting = sequence(0, 7, 14), sequence(1, 7, 14), sequence(2, 12, 2)
    for one in (old, young):
        planner.add(one)
    advance(planner, planner.schedule())
    planner.add(waiting)
    while not planner.preemptions:
        plan = planner.schedule()
        advance(planner, plan)
    assert ids(plan.decode) == [0]
    assert (young.done, young.blocks, young.place) == (0, [], -1)
    assert [one.request.id for one in planner] == [0, 1, 2]
    order: list[int] = []
    while planner.running or planner.waiting:
        plan = planner.schedule()
        order += ids(plan.admitted)
        advance(planner, plan)
    assert order == [1, 2]
    assert len(young.tokens) == 21


def test_prompt_logprobs_bound_the_chunk() -> None:
    planner = scheduler(blocks=1000, prefill_tokens=4 * LOGPROB_CHUNK)
    planner.add(sequence(0, 2 * LOGPROB_CHUNK, 1, prompt_logprobs=True))
    plan = planner.schedule()
    assert segments(plan) == [(0, 0, LOGPROB_CHUNK)]
    assert plan.prefill[0].logprob_rows == (0, LOGPROB_CHUNK)
    plan.prefill[0].sequence.prompt_logprobs = [0.0] * LOGPROB_CHUNK
    advance(planner, plan)
    # The last position of the prompt predicts the answer, not the prompt.
    assert planner.schedule().prefill[0].logprob_rows == (LOGPROB_CHUNK, 2 * LOGPROB_CHUNK - 1)


def test_recomputing_asks_for_no_prompt_logprob_twice() -> None:
    planner = scheduler()
    one = sequence(0, 10, 2, prompt_logprobs=True)
    one.prompt_logprobs = [0.0] * 9
    planner.add(one)
    assert planner.schedule().prefill[0].logprob_rows is None


def test_planning_costs_the_same_whatever_waits() -> None:
    def seconds_per_step(waiting: int) -> float:
        planner = scheduler(blocks=4096, max_batch=32, prefill_tokens=512)
        for number in range(waiting):
            planner.add(sequence(number, 16, 1000))
        for _ in range(3):
            advance(planner, planner.schedule())
        times = []
        for _ in range(50):
            start = time.perf_counter()
            plan = planner.schedule()
            times.append(time.perf_counter() - start)
            advance(planner, plan)
        return min(times)

    # Generous: a planner that looks at the queue would be 100 times slower.
    assert seconds_per_step(4_000) < 20 * seconds_per_step(32)


WORK = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(0, 30)), max_size=25)


@settings(max_examples=100, deadline=None)
@given(
    work=WORK,
    blocks=st.integers(25, 60),
    max_batch=st.integers(1, 6),
    prefill_tokens=st.integers(1, 50),
    cancels=st.dictionaries(st.integers(0, 24), st.integers(0, 80), max_size=8),
)
def test_every_request_ends_and_no_block_is_lost_or_shared(
    work: list[tuple[int, int, int]],
    blocks: int,
    max_batch: int,
    prefill_tokens: int,
    cancels: dict[int, int],
) -> None:
    planner = scheduler(blocks=blocks, max_batch=max_batch, prefill_tokens=prefill_tokens)
    arrivals = sorted(enumerate(work), key=lambda item: item[1][2])
    alive: dict[int, Sequence] = {}
    ended: set[int] = set()
    step = 0
    while arrivals or alive:
        while arrivals and arrivals[0][1][2] <= step:
            number, (prompt, answer, _) = arrivals.pop(0)
            alive[number] = sequence(number, prompt, answer)
            planner.add(alive[number])
        for number, when in cancels.items():
            if when == step and number in alive:
                planner.remove(alive.pop(number))
        plan = planner.schedule()
        check_plan(planner, plan, max_batch=max_batch, prefill_tokens=prefill_tokens)
        assert plan or not alive, "nothing moves"
        for one in advance(planner, plan):
            assert len(one.tokens) == one.stop_at
            ended.add(one.request.id)
            del alive[one.request.id]
        step += 1
        assert step < 20_000
    assert planner.pool.used == planner.running == planner.waiting == 0
    # Whoever was not cancelled has ended.
    assert set(range(len(work))) - ended <= set(cancels)


def check_plan(planner: Scheduler, plan: Plan, *, max_batch: int, prefill_tokens: int) -> None:
    running = [one for one in planner if one.place >= 0]
    assert len(running) <= max_batch
    assert len({one.place for one in running}) == len(running)
    owned = [block for one in running for block in one.blocks]
    assert len(set(owned)) == len(owned) == planner.pool.used
    assert 0 not in owned
    assert sum(segment.stop - segment.start for segment in plan.prefill) <= prefill_tokens
    assert len({one.key for one in plan.sequences}) == len(plan.sequences)
    for segment in plan.prefill:
        one = segment.sequence
        assert segment.start == one.done < segment.stop <= len(one.tokens)
        assert len(one.blocks) * BLOCK >= segment.stop
    for one in plan.decode:
        assert one.pending == 1
        assert len(one.blocks) * BLOCK >= len(one.tokens)
    for one in planner:
        if one.place < 0:
            assert (one.blocks, one.done) == ([], 0)


def test_more_blocks_than_are_free_are_never_given() -> None:
    planner = scheduler(blocks=3)
    assert sorted(planner.pool.allocate(3)) == [1, 2, 3]
    with pytest.raises(IndexError, match="1 KV blocks wanted, 0 free"):
        planner.pool.allocate(1)
