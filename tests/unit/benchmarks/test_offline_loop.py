"""The closed loop asks all engines for the same, and notes what a client would see."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from benchmarks.offline.loop import Ids, Job, Piece, WrongAnswer, drive


class Scripted:
    """An id per live request and step; `at_end` engines tell all when the request is over."""

    def __init__(self, *, extra: int = 0, at_end: bool = False) -> None:
        self.most = 0
        self.added: list[int] = []
        self._extra = extra
        self._at_end = at_end
        self._left: dict[int, int] = {}
        self._got: dict[int, Ids] = {}

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self.added.append(number)
        self._left[number] = output + self._extra
        self._got[number] = list(prompt)
        self.most = max(self.most, len(self._left))

    def step(self) -> Sequence[Piece]:
        pieces = []
        for number in list(self._left):
            self._left[number] -= 1
            over = self._left[number] == 0
            self._got[number].append(self._left[number])
            if over:
                del self._left[number]
            if not self._at_end:
                pieces.append(Piece(number, self._got[number][-1:], over))
            elif over:
                pieces.append(Piece(number, self._got[number][1:], True, first=0.25))
        return pieces


def ticking() -> itertools.count[int]:
    """Each look at the clock is a second later."""
    return itertools.count(100)


def test_as_many_requests_are_live_as_asked_for_and_each_end_sends_the_next() -> None:
    stepper = Scripted()
    done = drive(stepper, Job([[1]] * 7, [3, 1, 2, 1, 1, 5, 1], concurrency=3))
    assert stepper.most == 3
    assert stepper.added == list(range(7))
    assert [len(answer) for answer in done.answers] == [3, 1, 2, 1, 1, 5, 1]
    assert sum(sent <= done.ended[1] for sent in done.sent) == 3  # the first end sends the fourth


def test_fewer_requests_than_clients_are_all_sent_at_once() -> None:
    stepper = Scripted()
    drive(stepper, Job([[1]] * 2, [2, 2], concurrency=8))
    assert stepper.most == 2


def test_times_are_of_the_first_id_and_of_the_last_since_the_start() -> None:
    clock = ticking()
    done = drive(Scripted(), Job([[1]], [3], concurrency=1), now=lambda: float(next(clock)))
    # Looks at the clock: start, sent, first id, last id, end.
    assert (done.sent, done.first, done.ended, done.seconds) == ([1.0], [2.0], [3.0], 4.0)


def test_a_first_id_that_is_told_late_keeps_its_own_time() -> None:
    done = drive(Scripted(at_end=True), Job([[1]], [4], 1), now=lambda: 0.0)
    assert done.first == [0.25]


@pytest.mark.parametrize("extra", [-1, 1])
def test_an_answer_of_another_length_than_asked_for_ends_the_job(extra: int) -> None:
    with pytest.raises(WrongAnswer, match=f"request 0 got {4 + extra} ids, asked for 4"):
        drive(Scripted(extra=extra), Job([[1]], [4], 1))
