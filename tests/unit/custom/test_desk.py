"""Who gets which call, and when: without a process and without a clock."""

from __future__ import annotations

import random

from lmi.core import Call
from lmi.custom.desk import Desk

CALL = Call(())
OTHER = Call((), function="register_adapter")


def given(desk: Desk, now: float = 0.0) -> list[tuple[int, list[int]]]:
    return [(worker, [call_id for call_id, _ in batch]) for worker, batch in desk.assign(now)]


def test_calls_go_out_in_the_order_of_arrival_one_at_a_time() -> None:
    desk = Desk(1, 0.1, "handle")
    for number in (1, 2, 3):
        desk.submit(number, CALL, 0.0)
    assert given(desk) == []
    desk.add_worker(7, 0)
    assert given(desk) == [(7, [1])]
    assert given(desk) == []
    desk.finish(1)
    assert given(desk) == [(7, [2])]
    assert (desk.running, desk.waiting) == (1, 1)


def test_a_full_batch_goes_at_once_and_another_after_its_delay() -> None:
    desk = Desk(3, 0.1, "handle")
    desk.add_worker(7, 0)
    desk.submit(1, CALL, 0.0)
    desk.submit(2, CALL, 0.05)
    assert given(desk, 0.06) == []
    assert desk.next_assignment(0.06) == 0.1 - 0.06
    desk.submit(3, CALL, 0.07)
    assert given(desk, 0.07) == [(7, [1, 2, 3])]
    desk.submit(4, CALL, 0.2)
    assert desk.next_assignment(0.2) is None  # nobody is free
    for number in (1, 2, 3):
        desk.finish(number)
    assert given(desk, 0.25) == []
    assert given(desk, 0.31) == [(7, [4])]


def test_a_call_for_another_function_goes_alone_and_keeps_its_place() -> None:
    desk = Desk(4, 10.0, "handle")
    desk.add_worker(7, 0)
    for number, call in enumerate((CALL, CALL, OTHER, CALL)):
        desk.submit(number, call, 0.0)
    assert given(desk) == [(7, [0, 1])]
    desk.finish(0)
    assert given(desk) == []  # a batch is one piece of work
    desk.finish(1)
    assert given(desk) == [(7, [2])]
    desk.finish(2)
    assert given(desk) == []  # the last may still get company
    assert given(desk, 11.0) == [(7, [3])]


def test_async_workers_take_calls_up_to_their_capacity_the_freest_first() -> None:
    desk = Desk(1, 0.1, "handle")
    desk.add_worker(7, 2)
    desk.add_worker(8, 2)
    for number in range(5):
        desk.submit(number, CALL, 0.0)
    assert given(desk) == [(7, [0]), (8, [1]), (7, [2]), (8, [3])]
    desk.finish(1)
    assert given(desk) == [(8, [4])]


def test_a_worker_that_is_gone_takes_its_calls_along_and_gets_no_more() -> None:
    desk = Desk(2, 0.1, "handle")
    desk.add_worker(7, 0)
    for number in range(3):
        desk.submit(number, CALL, 0.0)
    given(desk)
    assert desk.remove_worker(7) == [0, 1]
    assert desk.remove_worker(7) == []
    assert desk.worker_of(0) is None
    assert not desk.heard(0, 1.0)
    assert given(desk, 5.0) == []
    assert desk.calls == [2]


def test_silence_is_counted_from_the_last_sign_of_life() -> None:
    desk = Desk(1, 0.1, "handle")
    desk.add_worker(7, 2)
    desk.submit(1, CALL, 0.0)
    desk.submit(2, CALL, 0.0)
    given(desk)
    assert desk.heard(2, 3.0)
    assert desk.silent(2.0, 4.0) == [1]
    assert desk.silent(2.0, 5.5) == [1, 2]


def test_a_call_that_waits_can_be_dropped_once() -> None:
    desk = Desk(1, 0.1, "handle")
    desk.submit(1, CALL, 0.0)
    assert desk.drop(1)
    assert not desk.drop(1)
    desk.add_worker(7, 0)
    assert given(desk) == []


def test_no_call_is_lost_or_given_twice_whatever_happens() -> None:
    rng = random.Random(7)
    for _ in range(200):
        size = rng.choice((1, 2, 5))
        desk = Desk(size, 0.5, "handle")
        fates: dict[int, int] = {}
        running: dict[int, list[int]] = {}
        now, number, worker = 0.0, 0, 100
        for _ in range(60):
            now += rng.random()
            match rng.randrange(5):
                case 0 | 1:
                    number += 1
                    desk.submit(number, rng.choice((CALL, CALL, OTHER)), now)
                    fates[number] = 0
                case 2:
                    worker += 1
                    desk.add_worker(worker, rng.choice((0, 2)))
                    running[worker] = []
                case 3 if running:
                    gone = rng.choice(list(running))
                    assert sorted(desk.remove_worker(gone)) == sorted(running.pop(gone))
                case 4:
                    for calls in running.values():
                        for call_id in calls:
                            desk.finish(call_id)
                        calls.clear()
            for who, batch in desk.assign(now):
                assert 0 < len(batch) <= size
                for call_id, _ in batch:
                    fates[call_id] += 1
                    running[who].append(call_id)
            assert desk.running == sum(map(len, running.values()))
        assert set(fates.values()) <= {0, 1}
        assert desk.waiting == sum(not fate for fate in fates.values())
