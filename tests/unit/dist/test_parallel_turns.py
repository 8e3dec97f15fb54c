"""Rank 0 and its followers do the same, whatever comes in between."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import pytest

from lmi.core import BadPayload, EngineDead
from lmi.dist.config import DistConfig
from lmi.dist.messages import CoreEvent, CoreRequest
from lmi.dist.parallel.following import Follower
from lmi.dist.parallel.leading import LeadingCore
from lmi.dist.parallel.turns import (
    Turn,
    decode_choices,
    decode_turn,
    encode_choices,
    encode_turn,
)
from lmi.dist.wire import Cancel, Close, Submit
from tests.support.scripted_core import REFUSED, ScriptedCore


class Tape:
    """A `Line` within one process: what rank 0 says is kept until it is heard."""

    def __init__(self) -> None:
        self.said: deque[bytes] = deque()
        self.closed = 0

    def broadcast(self, data: bytes | None) -> bytes:
        if data is not None:
            self.said.append(data)
            return data
        if not self.said:
            raise EngineDead("nothing more was said")
        return self.said.popleft()

    def close(self) -> None:
        self.closed += 1


class Recorded(ScriptedCore):
    """A scripted core that keeps all its events."""

    def __init__(self, folder: Path) -> None:
        super().__init__(DistConfig(folder, max_batch=3))
        self.events: list[CoreEvent] = []
        self.ended = False

    def step(self) -> list[CoreEvent]:
        events = super().step()
        self.events += events
        return events

    def close(self) -> None:
        self.ended = True
        super().close()


def request(number: int, first: int = 50) -> CoreRequest:
    return CoreRequest(number, (first, number), max_new_tokens=1 + number % 9, choices=2)


def test_a_turn_survives_the_wire_and_is_small_without_news() -> None:
    events = [Submit(request(3)), Cancel(3), Cancel(2**60, 1), Close()]
    turn = decode_turn(encode_turn(Turn(step=True, events=events)))
    assert turn.step
    assert list(turn.events) == events
    assert len(encode_turn(Turn(step=True))) == 3


def test_a_follower_does_what_rank_0_does(tmp_path: Path) -> None:
    rng = random.Random(7)
    leader, follower, tape = Recorded(tmp_path), Recorded(tmp_path), Tape()
    core = LeadingCore(leader, tape)
    for number in range(1, 120):
        match rng.randrange(5):
            case 0 | 1:
                core.add(request(number))
            case 2:
                core.cancel(rng.randrange(1, number + 1), rng.choice([None, 0, 1]))
            case 3:
                core.beat()
            case _:
                with pytest.raises(BadPayload):
                    core.add(request(number, REFUSED))
        if core.has_work and rng.random() < 0.7:
            core.step()
    while core.has_work:
        core.step()
    core.close()
    Follower(follower, tape).run()
    assert follower.events == leader.events
    assert len(leader.events) > 100
    assert follower.stats() == core.stats()
    assert not tape.said
    assert leader.ended
    assert tape.closed == 1


def test_a_follower_that_refuses_what_rank_0_took_is_dead(tmp_path: Path) -> None:
    tape = Tape()
    tape.broadcast(encode_turn(Turn(step=True, events=[Submit(request(1, REFUSED))])))
    with pytest.raises(EngineDead, match="refused here"):
        Follower(Recorded(tmp_path), tape).run()


def test_followers_in_the_middle_of_a_turn_are_not_spoken_to(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('{"bug_at_step": 1}')
    core, tape = Recorded(tmp_path), Tape()
    leading = LeadingCore(core, tape)
    leading.add(request(1))
    with pytest.raises(RuntimeError):
        leading.step()
    said = len(tape.said)
    leading.close()
    assert len(tape.said) == said
    assert core.ended


def test_choices_are_taken_by_those_they_were_sampled_for_alone() -> None:
    rows = [(1, 0), (1, 1), (2**40, 0)]
    data = encode_choices(rows, [5, None, 7])
    assert decode_choices(data, rows) == [5, None, 7]
    for others in ([], rows[:2], [(1, 0), (2, 0), (2**40, 0)], [rows[1], rows[0], rows[2]]):
        with pytest.raises(EngineDead, match="no longer compute the same"):
            decode_choices(data, others)
